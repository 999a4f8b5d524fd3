"""The keys of config.yaml for models that paint: the backend's section, and one model's."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from backends.base import Section
from backends.diffusers.samplers import SAMPLERS, known
from backends.diffusers.start import Device, Offload, Previews, Type
from backends.workers.memory import memory_bytes
from canonical.errors import InvalidRequest
from canonical.painting import Paint, check_paint, nearest

PIXELS = 2048 * 2048
"""Of one picture, where nothing else is said."""


class PainterModelSettings(Section, frozen=True):
    """One model. What is left out is as its files say, or as the backend's section does."""

    folder: str = ""
    """Inside ``models_dir``, or anywhere; empty: the model's id."""
    file: str = ""
    """One safetensors file, likewise."""
    title: str = ""
    vae: str = ""
    """A folder or a file, in place of its own: SDXL's overflows in 16 bits, which ``sdxl-vae-fp16-fix`` does not."""
    config: str = ""
    """For a single file: a folder of the same family, for how it is built and reads; empty: any in ``models_dir``."""
    ip_adapter: str = ""
    loras: tuple[str, ...] | None = None
    """Those that may be laid over it; absent: all that fit."""
    prefix: str = ""
    """Put before each prompt that does not have it: the tags of quality that some models are made for."""
    negative_prompt: str = ""
    """For requests that have none."""
    sampler: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    clip_skip: int | None = None
    strength: float | None = None
    width: int | None = None
    height: int | None = None
    max_pixels: Annotated[int, Meta(ge=0)] = 0
    """0: as the backend's section says."""


class PainterSettings(Section, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    loras_dir: str = ""
    """Empty: ``loras`` in ``models_dir``."""
    device: Device = "auto"
    """auto: a GPU where torch finds one."""
    dtype: Type = "auto"
    """auto: 16 bits on a GPU, 32 elsewhere."""
    threads: Annotated[int, Meta(ge=0, le=512)] = 0
    """0: half of the processors, at most 4."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 5
    """How far painting steps back behind all else that wants a processor."""
    offload: Offload = "none"
    """For GPUs too small for a model: its parts (``model``) or layers (``sequential``) are there only while they compute."""
    vae_tiling: bool = False
    vae_slicing: bool = False
    attention_slicing: bool = False
    channels_last: bool = False
    compile: bool = False
    """On GPUs alone: the first picture then takes minutes, and later ones less."""
    previews: Previews = "auto"
    """How half-finished pictures are made: small and rough (``fast``), or as finished ones are (``full``)."""
    max_pixels: Annotated[int, Meta(ge=4096)] = PIXELS
    memory_limit: int | str | None = None
    """Bytes (or ``8GiB``) that a worker may have; what wants more is refused. Absent: by the model's size; 0: no limit."""
    time_limit: Annotated[float, Meta(ge=0)] = 1800.0
    """Seconds that one picture may take; 0: as many as it takes."""


def check(settings: PainterSettings) -> None:
    """Raises ValueError for what no type tells."""
    memory_bytes(settings.memory_limit)


def check_model(settings: PainterModelSettings) -> None:
    """Raises ValueError for what no type tells."""
    if settings.folder and settings.file:
        raise ValueError("a model is a folder or a file, not both")
    if settings.sampler and known(settings.sampler) is None:
        raise ValueError(f"sampler: there is no {settings.sampler!r}{nearest(settings.sampler, SAMPLERS)}")
    try:
        check_paint(preset(settings))
    except InvalidRequest as error:
        raise ValueError(error.message) from None


def preset(settings: PainterModelSettings) -> Paint:
    """What the configuration says of its pictures."""
    return Paint(
        prompt=settings.prefix,
        negative_prompt=settings.negative_prompt,
        sampler=known(settings.sampler) if settings.sampler else None,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
        clip_skip=settings.clip_skip,
        strength=settings.strength,
        width=settings.width,
        height=settings.height,
    )
