"""The keys of config.yaml for models that match labels to pictures: the backend's section, and one model's."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from backends.base import Section
from backends.workers.memory import memory_bytes

Device = Literal["auto", "cpu", "cuda", "mps"]
Type = Literal["auto", "float32", "float16", "bfloat16"]

GAP = "{}"
"""Where the label goes in a template."""


class ClipModelSettings(Section, frozen=True):
    """One model."""

    folder: str = ""
    """Inside ``models_dir``; empty: the model's id."""
    template: str | None = None
    """The sentence that a label becomes, with ``{}`` in its place; absent: as the backend's section says."""


class ClipSettings(Section, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    template: str = "a photo of a {}"
    """CLIP knows pictures by their captions, and a bare word is none."""
    device: Device = "auto"
    """auto: a GPU where torch finds one."""
    dtype: Type = "auto"
    """auto: 16 bits on a GPU, 32 elsewhere."""
    threads: Annotated[int, Meta(ge=0, le=512)] = 0
    """0: half of the processors, at most 4."""
    memory_limit: int | str | None = None
    """Bytes (or ``2GiB``) that a worker may have; what wants more is refused. Absent: by the model's size; 0: no limit."""
    time_limit: Annotated[float, Meta(ge=0)] = 120.0
    """Seconds that one picture may take; 0: as many as it takes."""


def check_template(template: str) -> None:
    """Raises ValueError for a template that leaves no place for the label."""
    if template.count(GAP) != 1:
        raise ValueError(f"template: a text with one {GAP} in it, where the label goes, not {template[:80]!r}")


def check(settings: ClipSettings) -> None:
    """Raises ValueError for what no type tells."""
    check_template(settings.template)
    memory_bytes(settings.memory_limit)
