"""What the bodies of ``/api/v1`` share: the words for what is wrong with one, and how long a model stays."""

from __future__ import annotations

from typing import Any

from adapters.ollama.times import read_keep_alive
from adapters.reading import fault_of
from canonical.errors import InvalidRequest


def needed(name: str) -> InvalidRequest:
    """A field that must be there is not."""
    return InvalidRequest(f'"{name}" is required', param=name, code="missing_required_parameter")


def invalid(text: str) -> InvalidRequest:
    """What the decoder found wrong, and where."""
    fault = fault_of(text)
    path, words = fault.path, fault.words
    if fault.missing:
        return needed(path)
    return InvalidRequest(f'"{path}": {words[:1].lower()}{words[1:]}' if path else words, param=path or None)


def read_stay(ttl: Any, lost: list[str]) -> float | None:
    """Seconds of ``ttl``. One that is none is ``lost``."""
    try:
        return read_keep_alive(ttl)
    except InvalidRequest:
        lost.append("ttl")
        return None
