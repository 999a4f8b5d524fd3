"""How far long work is: a pull, a creation, a load."""

from __future__ import annotations

from msgspec import Struct


class Progress(Struct, frozen=True, kw_only=True):
    """One step. Work that ends well just ends; a failure is an exception."""

    status: str
    """What is going on, in Ollama's words where it has some: ``pulling manifest``, ``verifying sha256 digest``."""
    digest: str = ""
    """``sha256:<64 hex>`` of the blob that it is about; empty: the work as a whole."""
    total: int = 0
    """Bytes; 0: not known."""
    completed: int = 0

    @property
    def share(self) -> float:
        """From 0 to 1; 0 where the total is not known."""
        return min(self.completed / self.total, 1.0) if self.total else 0.0
