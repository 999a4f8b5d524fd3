"""Us as server of the chats and sessions: what the gateway's routes import. Small objects are worded here."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.brenda import wire
from adapters.brenda.chat import Chat, read_chat
from adapters.brenda.errors import error_body, error_status
from adapters.brenda.loads import LoadStream
from adapters.framing import encode_line

__all__ = [
    "Chat",
    "LoadStream",
    "error_body",
    "error_status",
    "models_reply",
    "read_chat",
    "session_reply",
    "stopped_reply",
]


def models_reply(names: Iterable[str]) -> bytes:
    """The answer of ``GET /v1/models``."""
    return encode_line(wire.Models(list(names)))


def session_reply(id: str, model: str, *, usable: bool) -> bytes:
    """The answer of ``GET /v1/session``; an empty ``model`` is none."""
    return encode_line(wire.Session(id, model or None, usable))


def stopped_reply() -> bytes:
    """The answer of ``POST /v1/stop``."""
    return encode_line(wire.Stopped())
