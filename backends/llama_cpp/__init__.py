"""GGUF models inside the gateway, through llama.cpp: chat, completion, vision and embeddings.

Two engines do it, of which a backend has one: ``xllamacpp`` (default; in this process or in a worker) and
``llama-cpp-python`` (always in a worker process), each with many requests at once. Neither is imported before a model
loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backends.llama_cpp.backend import LlamaCppBackend

__all__ = ["LlamaCppBackend"]


def __getattr__(name: str) -> Any:
    """The backend, at its first use: a worker process, which is of this package too, never needs it."""
    if name != "LlamaCppBackend":
        raise AttributeError(name)
    from backends.llama_cpp.backend import LlamaCppBackend

    return LlamaCppBackend
