"""Us as server of the hybrid API: what the gateway's routes import."""

from __future__ import annotations

from adapters.hybrid.chat import Chat, read_chat
from adapters.hybrid.errors import NO_MODEL, error_body, error_status
from adapters.hybrid.models import (
    loaded_reply,
    not_loaded_reply,
    not_unloaded_reply,
    read_load,
    read_unload,
    rows,
    unloaded_reply,
)

__all__ = [
    "NO_MODEL",
    "Chat",
    "error_body",
    "error_status",
    "loaded_reply",
    "not_loaded_reply",
    "not_unloaded_reply",
    "read_chat",
    "read_load",
    "read_unload",
    "rows",
    "unloaded_reply",
]
