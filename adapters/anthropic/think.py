"""How long to think: budgets of tokens and words of effort, both ways.

``BUDGETS`` is read in both directions: the least budget that means a level, and the one that is written for it.
"""

from __future__ import annotations

from typing import Any, Literal

from adapters.anthropic import wire
from canonical.errors import InvalidRequest
from canonical.requests import Think

Style = Literal["adaptive", "enabled"]
"""How a server wants to be told: new models by effort, older ones by a budget; each kind refuses the other's words."""

BUDGETS: tuple[tuple[Think, int, int], ...] = (
    ("max", 32_769, 49_152),
    ("high", 16_385, 24_576),
    ("medium", 4_097, 8_192),
    ("low", 0, 2_048),
)
"""Level, tokens from which on it is meant, tokens that are written for it."""

_EFFORTS: dict[str, Think] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_WRITTEN: dict[Think, str] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "max"}
_MEASURE = 8_192
"""Tokens of a budget where the model's own measure is wanted."""


def read_think(thinking: wire.Thinking | None, config: wire.OutputConfig | None) -> Think | None:
    """How long to think. None: not asked for, which this dialect means as "off" wherever it can be switched.

    Raises:
        InvalidRequest: an unknown type.
    """
    if thinking is None:
        return None
    match thinking.type:
        case "disabled":
            return "off"
        case "enabled" if thinking.budget_tokens is not None:
            tokens = thinking.budget_tokens
            return next((level for level, least, _ in BUDGETS if tokens >= least), "low")
        case "enabled" | "adaptive" | "between_tools":
            return _EFFORTS.get((config.effort if config else None) or "", "on")
        case _:
            raise InvalidRequest(f"thinking.type: unknown type {thinking.type[:40]!r}", param="thinking")


def write_think(think: Think | None, *, style: Style) -> tuple[dict[str, Any] | None, str | None]:
    """``thinking`` and ``output_config.effort``; None: left out."""
    if think is None:
        return None, None
    if think == "off":
        return {"type": "disabled"}, None
    if style == "adaptive":
        return {"type": "adaptive"}, _WRITTEN.get(think)
    level: Think = "low" if think == "minimal" else think
    budget = next((tokens for name, _, tokens in BUDGETS if name == level), _MEASURE)
    return {"type": "enabled", "budget_tokens": budget}, None
