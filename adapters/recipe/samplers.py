"""Samplers by two names: ours (``dpmpp_2m_karras``), and A1111's, which tells the schedule apart (DPM++ 2M, Karras)."""

from __future__ import annotations

import re

_METHODS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "deis": "DEIS",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpm_adaptive": "DPM adaptive",
    "dpm_fast": "DPM fast",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2s": "DPM++ 2S",
    "dpmpp_2s_a": "DPM++ 2S a",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "dpmpp_sde": "DPM++ SDE",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "lcm": "LCM",
    "lms": "LMS",
    "pndm": "PLMS",
    "restart": "Restart",
    "tcd": "TCD",
    "unipc": "UniPC",
}
SCHEDULES = {
    "beta": "Beta",
    "exponential": "Exponential",
    "karras": "Karras",
    "lu": "Lu",
    "normal": "Normal",
    "polyexponential": "Polyexponential",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "trailing": "Trailing",
    "uniform": "Uniform",
}
"""The end of our name -> the schedule that A1111 tells beside the sampler."""
AUTOMATIC = "Automatic"
"""The schedule that goes with the sampler."""
_OTHERS = {"plms": "pndm", "dpmpp2m": "dpmpp_2m", "dpmppsde": "dpmpp_sde", "dpmpp2msde": "dpmpp_2m_sde"}


def _folded(name: str) -> str:
    """``DPM++ 2M SDE``, ``k_dpmpp_2m_sde`` and ``dpmpp_2m_sde`` are one; an ``ancestral`` is an ``a``."""
    name = name.casefold().replace("++", "pp").removeprefix("k_").replace("ancestral", "a")
    return re.sub(r"[^0-9a-z]", "", name)


_KNOWN = {_folded(text): name for name, text in _METHODS.items()} | {_folded(name): name for name in _METHODS} | _OTHERS
_SCHEDULED = {_folded(text): name for name, text in SCHEDULES.items()} | {_folded(name): name for name in SCHEDULES}


def a1111_sampler(name: str) -> tuple[str, str]:
    """A1111's names of our sampler and of its schedule; one that is not known keeps its name."""
    if name in _METHODS:
        return _METHODS[name], AUTOMATIC
    for end, schedule in SCHEDULES.items():
        method = name.removesuffix(f"_{end}")
        if method != name and method in _METHODS:
            return _METHODS[method], schedule
    return name, AUTOMATIC


def our_sampler(sampler: str, schedule: str = "") -> str:
    """Our name of A1111's sampler and schedule, or of both in one (``DPM++ 2M Karras``, as it was before 1.9).

    A sampler that is not known keeps its name, for whoever has none such to say so.
    """
    folded = _folded(sampler)
    end = _SCHEDULED.get(_folded(schedule), "")
    method = _KNOWN.get(folded, "")
    if not method:
        for text, name in _SCHEDULED.items():
            if folded.endswith(text) and folded.removesuffix(text) in _KNOWN:
                method, end = _KNOWN[folded.removesuffix(text)], end or name
    if not method:
        return sampler
    return f"{method}_{end}" if end else method
