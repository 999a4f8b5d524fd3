"""Samplers by the names that people know, and what diffusers calls them. Importing this imports neither torch nor diffusers.

A name is a way to step and, behind it, how the noise is spread over the steps: ``dpmpp_2m_karras``. Without the second
it is as the model's own configuration has it: a turbo's steps count from the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

_KARRAS = "use_karras_sigmas"
_EXPONENTIAL = "use_exponential_sigmas"
_SPREADS: dict[str, dict[str, Any]] = {
    "karras": {_KARRAS: True},
    "exponential": {_EXPONENTIAL: True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
_ALL = ("karras", "exponential", "sgm_uniform")

_WAYS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    # name: its class in diffusers, what makes it this one, the spreads that it knows
    "euler": ("EulerDiscreteScheduler", {}, _ALL),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}, ("sgm_uniform",)),
    "heun": ("HeunDiscreteScheduler", {}, _ALL),
    "dpm2": ("KDPM2DiscreteScheduler", {}, _ALL),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}, _ALL),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}, _ALL),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}, _ALL),
    "dpmpp_3m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, _ALL),
    "dpmpp_2s": (
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True},
        ("karras", "exponential"),
    ),
    "dpmpp_sde": (
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "lower_order_final": True},
        ("karras", "exponential"),
    ),
    "unipc": ("UniPCMultistepScheduler", {}, _ALL),
    "deis": ("DEISMultistepScheduler", {"algorithm_type": "deis", "solver_type": "logrho"}, _ALL),
    # Its clipping is meant for pixels; what is painted here is latent.
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, ("sgm_uniform",)),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}, ()),
    "lcm": ("LCMScheduler", {}, ()),
    "tcd": ("TCDScheduler", {}, ()),
}
if find_spec("scipy") is not None:
    _WAYS["lms"] = ("LMSDiscreteScheduler", {}, _ALL)

_OTHERS = {
    # as A1111, ComfyUI, InvokeAI and others write them
    "ddpm": "ddim",
    "dpm_2": "dpm2",
    "dpm_2_a": "dpm2_a",
    "dpm_2_ancestral": "dpm2_a",
    "dpm2_ancestral": "dpm2_a",
    "dpmpp": "dpmpp_2m",
    "euler_ancestral": "euler_a",
    "eulera": "euler_a",
    "plms": "pndm",
    "uni_pc": "unipc",
}
_CLASSES = {its.removesuffix("Scheduler").casefold(): name for name, (its, _, _) in reversed(_WAYS.items())}
_CLASSES |= {"dpmsolversde": "dpmpp_sde", "ddpm": "ddim"}


def _all() -> Iterator[str]:
    for name, (_, _, spreads) in _WAYS.items():
        yield name
        yield from (f"{name}_{spread}" for spread in spreads)


SAMPLERS: tuple[str, ...] = tuple(_all())
"""Every name, as it is told and kept."""


def known(name: str) -> str | None:
    """The sampler that is meant by ``Euler a``, ``DPM++ 2M Karras``, ``DPMSolverMultistepScheduler``; None: none is."""
    plain = re.sub(r"[^a-z0-9]+", "_", name[:100].casefold().replace("++", "pp")).strip("_").removeprefix("k_")
    spread = next((spread for spread in _SPREADS if plain.endswith(f"_{spread}")), "")
    way = plain.removesuffix(f"_{spread}") if spread else re.sub(r"_(automatic|uniform|normal)$", "", plain)
    its = way.replace("_", "").removesuffix("scheduler")
    way = _OTHERS.get(way) or _CLASSES.get(its) or _CLASSES.get(f"{its}discrete") or way
    meant = f"{way}_{spread}" if spread else way
    return meant if meant in SAMPLERS else None


def own(config: Mapping[str, Any]) -> str:
    """The sampler of a model's ``scheduler_config.json``."""
    its = str(config.get("_class_name", ""))
    for name, (other, options, spreads) in _WAYS.items():
        if its == other and all(config.get(key, value) == value for key, value in options.items()):
            for spread, flag in (("karras", _KARRAS), ("exponential", _EXPONENTIAL)):
                if config.get(flag) is True and spread in spreads:
                    return f"{name}_{spread}"
            return name
    return known(its) or "euler"


def scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A new one, from the configuration that came with the model: settings of others leak through the ones made of them."""
    import diffusers

    spread = next((spread for spread in _SPREADS if name.endswith(f"_{spread}")), "")
    its, options, _ = _WAYS[name.removesuffix(f"_{spread}") if spread else name]
    kind = getattr(diffusers, its)
    # What its class does not know would be kept in it, and told in a warning.
    plain = {"_class_name": its} | {key: value for key, value in config.items() if not key.startswith("_")}
    flags: dict[str, Any] = {_KARRAS: False, _EXPONENTIAL: False, "use_beta_sigmas": False, "use_flow_sigmas": False}
    flags |= {**options, **_SPREADS.get(spread, {})}
    taken = kind._get_init_keys(kind)  # noqa: SLF001  # what a scheduler takes is told nowhere else
    merged = {key: value for key, value in {**plain, **flags}.items() if key in taken}
    return kind(**merged)
