"""What another server's list of running models looks like: as ours, and any of it may be missing."""

from __future__ import annotations

from msgspec import Struct

from adapters.ollama.wire import Details


class Running(Struct, kw_only=True):
    """A row of its ``/api/ps``."""

    name: str | None = ""
    model: str | None = ""
    size: int | None = 0
    size_vram: int | None = 0
    digest: str | None = ""
    details: Details | None = None
    expires_at: str | None = ""
    context_length: int | None = 0


class Runnings(Struct):
    """The answer of its ``/api/ps``."""

    models: list[Running] | None
