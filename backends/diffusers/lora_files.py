"""Which adapter a file holds, by its head alone."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from canonical.painting import LoraInfo


class LoraFile(Struct, frozen=True, kw_only=True):
    """An adapter that lies in a folder."""

    info: LoraInfo
    path: Path
    family: str = ""
    """Of the models that it fits: ``sdxl``, ``sd1``, ``sd2``; empty: not known, so any may try."""
    trouble: str = ""
    """Why it cannot be used."""


def lora_file(path: Path) -> LoraFile | None:
    """The adapter of a safetensors file; None: it holds none. Blocks for a disk's time."""
    return LoraFile(info=LoraInfo(id=path.stem), path=path)
