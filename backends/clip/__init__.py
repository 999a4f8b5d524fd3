"""CLIP models: how well labels fit a picture. Folders as transformers keeps them; torch runs in worker processes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.clip.backend import ClipBackend

__all__ = ["ClipBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "ClipBackend":
        raise AttributeError(name)
    from backends.clip.backend import ClipBackend

    return ClipBackend
