"""The keys of config.yaml for Marian's models: the backend's section, and one model's."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from backends.base import Section

ComputeType = Literal["int8", "int8_float32", "int8_bfloat16", "int16", "float32", "bfloat16", "float16"]


class MarianSettings(Section, frozen=True):
    """The backend's section."""

    models_dir: str = "models/translation"
    cache: str = "data/translation"
    """Where converted models are kept."""
    compute_type: ComputeType = "int8"
    beam: Annotated[int, Meta(ge=1, le=16)] = 2
    """Ways of saying a sentence that are followed at once; 1 is quickest, 4 is four times the work for little more."""
    threads: Annotated[int, Meta(ge=0, le=256)] = 0
    """Of one model; 0: as many as there are cores, but no more than 4."""
    slots: Annotated[int, Meta(ge=1, le=64)] = 4
    """Requests that one model takes turns with."""
    hang: Annotated[float, Meta(ge=0)] = 60.0
    """Seconds without a sign of life after which a worker is ended; 0: never."""
    memory_limit: int | str | None = None
    """Of a worker; what wants more dies alone."""


class MarianModelSettings(Section, frozen=True):
    """A model's own."""

    sources: tuple[str, ...] = ()
    """Languages that it translates from, where neither its name nor its README says."""


def kind_of(compute_type: str) -> str:
    """How the numbers are kept of a model that computes so; what is left to do is done at each load."""
    return {"int16": "int16", "float16": "float16", "float32": "float32", "bfloat16": "float32"}.get(
        compute_type, "int8"
    )
