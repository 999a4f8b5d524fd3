"""Durations as people write them in a configuration: ``300``, ``"5m"``, ``"1h30m"``, ``-1``."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"([-+]?)((?:{_PART.pattern})+)")
_BARE = re.compile(r"[-+]?\d+(?:\.\d*)?")


def seconds(value: float | str) -> float:
    """A number of seconds, or Go's notation of a duration; negative means for ever where it is a keep-alive.

    Raises:
        ValueError: neither.
    """
    if not isinstance(value, str):
        return float(value)
    if _BARE.fullmatch(value):
        return float(value)
    whole = _WHOLE.fullmatch(value)
    if whole is None:
        raise ValueError(f"invalid duration {value!r}: write seconds, or 30s, 5m, 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(whole[2]))
    return -total if whole[1] == "-" else total
