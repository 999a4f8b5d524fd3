"""How long to think and how long to stay loaded: the wishes that many servers added to OpenAI's routes, each in its own words.

    "reasoning_effort": "high"                               OpenAI
    "reasoning": {"effort": "high"} or {"max_tokens": 2000}  OpenRouter
    "thinking": {"type": "enabled", "budget_tokens": 2000}   DeepSeek and others
    "thinking_budget_tokens": 2000                           llama-server
    "think": true, "keep_alive": "5m"                        Ollama's clients
    "ttl": 300                                               LM Studio's clients

None of them is ever an error: a word that nobody understands is lost, and its path is told.
"""

from __future__ import annotations

from typing import Any

from adapters.ollama.times import read_keep_alive
from adapters.openai import wire
from adapters.openai.fields import EFFORTS
from canonical.budgets import level_of
from canonical.errors import InvalidRequest
from canonical.requests import Think

Wish = tuple[Think, int | None]
"""A level, and the budget of tokens for which it stands."""

OBJECTS = {
    "reasoning": frozenset({"effort", "max_tokens", "enabled"}),
    "thinking": frozenset({"type", "budget_tokens"}),
}
"""The wishes that are objects, and what is read in them."""

_TYPES: dict[str, Think] = {"disabled": "off", "enabled": "on", "adaptive": "on", "auto": "on"}


def read_effort(request: wire.ChatRequest, lost: list[str]) -> tuple[Think | None, int | None]:
    """How long to think: the first wish that is understood. ``lost`` gets the paths of those that are not followed."""
    found: Wish | None = None
    for name, value in (
        ("reasoning_effort", request.reasoning_effort),
        ("reasoning", request.reasoning),
        ("thinking", request.thinking),
        ("thinking_budget_tokens", request.thinking_budget_tokens),
        ("think", request.think),
    ):
        if value is None:
            continue
        if name in OBJECTS and isinstance(value, dict):
            said = {key: value[key] for key in OBJECTS[name] if value.get(key) is not None}
            wish = _object(said)
            if not said:
                continue
        else:
            wish = _object({"max_tokens": value}) if name == "thinking_budget_tokens" else _word(value)
        if wish is None or found not in (None, wish):
            lost.append(name)
        found = found or wish
    return found or (None, None)


def read_stay(
    request: wire.ChatRequest | wire.CompletionRequest | wire.EmbeddingsRequest, lost: list[str]
) -> float | None:
    """Seconds for which the model stays loaded. ``lost`` is as for ``read_effort``."""
    for name, value in (("keep_alive", request.keep_alive), ("ttl", request.ttl)):
        if value is not None:
            try:
                return read_keep_alive(value)
            except InvalidRequest:
                lost.append(name)
    return None


def _word(value: Any) -> Wish | None:
    if isinstance(value, bool):
        return ("on" if value else "off"), None
    level = EFFORTS.get(value) if isinstance(value, str) else None
    return None if level is None else (level, None)


def _object(said: dict[str, Any]) -> Wish | None:
    tokens = said.get("max_tokens", said.get("budget_tokens"))
    if said.get("type") == "disabled" or said.get("enabled") is False:
        return "off", None
    if isinstance(tokens, int) and not isinstance(tokens, bool):
        # Elsewhere 0 means none, and -1 as many as the model likes.
        return (level_of(tokens), tokens) if tokens > 0 else ("on" if tokens else "off", None)
    kind = said.get("type")
    if isinstance(kind, str) and kind in _TYPES:
        return _TYPES[kind], None
    return _word(said.get("effort", said.get("enabled")))
