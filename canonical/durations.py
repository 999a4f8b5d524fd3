"""Durations as people write them: ``300``, ``"5m"``, ``"1h30m"``, ``-1``. Inside they are seconds."""

from __future__ import annotations

import re

LENGTH_LIMIT = 100
"""Characters: the longest duration that anybody means is far shorter."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STEP = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(\.|[^0-9.]*)")


def seconds(value: float | str) -> float:
    """A number of seconds, or Go's notation of a duration. A text without a unit is seconds as well.

    Raises:
        ValueError: neither; in the words of Go's parser, which clients of Ollama know.
    """
    if not isinstance(value, str):
        return float(value)
    bare = value.strip()
    sign = -1.0 if bare.startswith("-") else 1.0
    bare = bare[1:] if bare[:1] in {"-", "+"} else bare
    if not bare or len(bare) > LENGTH_LIMIT:
        raise _invalid(value)
    total, end = 0.0, 0
    while end < len(bare):
        step = _STEP.match(bare, end)
        if step is None or step[2] == ".":
            raise _invalid(value)
        number, unit = step.groups()
        if not unit and step.end() == len(bare) and end == 0:
            return sign * float(number)
        if unit not in _UNITS:
            problem = f'unknown unit "{unit}"' if unit else "missing unit"
            raise ValueError(f'{problem} in duration "{value}"')
        total += float(number) * _UNITS[unit]
        end = step.end()
    return sign * total


def _invalid(text: str) -> ValueError:
    return ValueError(f'invalid duration "{text[:LENGTH_LIMIT]}"')
