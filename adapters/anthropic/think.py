"""How long to think: budgets of tokens and words of effort, both ways."""

from __future__ import annotations

from typing import Any, Literal

from adapters.anthropic import wire
from canonical.budgets import budget_of, level_of
from canonical.errors import InvalidRequest
from canonical.requests import Think

Style = Literal["adaptive", "enabled"]
"""How a server wants to be told: new models by effort, older ones by a budget; each kind refuses the other's words."""

_EFFORTS: dict[str, Think] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
_WRITTEN: dict[Think, str] = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "max"}


def read_think(
    thinking: wire.Thinking | None, config: wire.OutputConfig | None, lost: list[str]
) -> tuple[Think | None, int | None]:
    """How long to think, and the budget of tokens for which that stands.

    None: not asked for, which this dialect means as "off" wherever it can be switched. ``lost`` gets the path of an
    effort that says nothing more.

    Raises:
        InvalidRequest: an unknown type.
    """
    effort = config.effort if config else None
    level = _EFFORTS.get(effort or "")
    found: tuple[Think | None, int | None] = (None, None)
    match thinking.type if thinking is not None else None:
        case None:
            pass
        case "disabled":
            found = "off", None
        case "enabled" if thinking is not None and (tokens := thinking.budget_tokens) is not None:
            found = level_of(tokens), tokens if tokens > 0 else None
        case "enabled" | "adaptive" | "between_tools":
            found = level or "on", None
        case kind:
            raise InvalidRequest(f"thinking.type: unknown type {kind[:40]!r}", param="thinking")
    if effort and (level is None or found[0] != level):
        lost.append("output_config.effort")
    return found


def write_think(
    think: Think | None, *, style: Style, budget: int | None = None
) -> tuple[dict[str, Any] | None, str | None]:
    """``thinking`` and ``output_config.effort``; None: left out. A ``budget`` counts where the style has budgets."""
    if think is None:
        return None, None
    if think == "off":
        return {"type": "disabled"}, None
    if style == "adaptive":
        return {"type": "adaptive"}, _WRITTEN.get(think)
    return {"type": "enabled", "budget_tokens": budget_of(think) if budget is None else budget}, None
