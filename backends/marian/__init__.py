"""Translation by Marian's models (Helsinki-NLP's OPUS-MT and their like), run by CTranslate2 in worker processes.

Folders of safetensors as Hugging Face has them are converted on first use; PyTorch is not needed for that, nor to run them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.marian.backend import MarianBackend

__all__ = ["MarianBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "MarianBackend":
        raise AttributeError(name)
    from backends.marian.backend import MarianBackend

    return MarianBackend
