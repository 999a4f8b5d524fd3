"""The keys of config.yaml for models that read text in pictures: the backend's section, and one model's."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from backends.base import Section
from backends.workers.memory import memory_bytes

Share = Annotated[float, Meta(ge=0, le=1)]


class OcrModelSettings(Section, frozen=True):
    """One model. Files are inside ``models_dir``; those that are left out are the ones that RapidOCR brings along."""

    find: str = ""
    """An ONNX file that finds lines of text."""
    read: str = ""
    """One that reads a line, of another script; RapidOCR's own reads Latin letters, Chinese and Japanese."""
    characters: str = ""
    """The characters that ``read`` knows, a line each, where its own file does not tell."""


class OcrSettings(Section, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    side: Annotated[int, Meta(ge=32, le=4096)] = 960
    """Pixels of the longer side at which lines of text are looked for. They are read at their full size."""
    score: Share = 0.5
    """How sure a reading must be to count."""
    upside_down: bool = False
    """Whether lines may stand on their heads; to look for it takes a third more time."""
    threads: Annotated[int, Meta(ge=0, le=512)] = 0
    """0: half of the processors, at most 4."""
    memory_limit: int | str = "2GiB"
    """What a worker may have; what wants more is refused. 0: no limit."""
    time_limit: Annotated[float, Meta(ge=0)] = 120.0
    """Seconds that one picture may take; 0: as many as it takes."""


def check(settings: OcrSettings) -> None:
    """Raises ValueError for what no type tells."""
    memory_bytes(settings.memory_limit)
