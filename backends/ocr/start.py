"""What a worker that reads is started for."""

from __future__ import annotations

from msgspec import Struct


class Start(Struct, frozen=True, kw_only=True):
    """One model, and how it runs. Empty paths: RapidOCR's own files."""

    find: str = ""
    read: str = ""
    characters: str = ""
    side: int = 960
    score: float = 0.5
    upside_down: bool = False
    threads: int = 1
