"""Diffusion models: pictures of prompts. Folders of diffusers and single files, as safetensors; torch runs in worker processes only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.diffusers.backend import DiffusersBackend

__all__ = ["DiffusersBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "DiffusersBackend":
        raise AttributeError(name)
    from backends.diffusers.backend import DiffusersBackend

    return DiffusersBackend
