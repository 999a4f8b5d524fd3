"""What goes over the wire, by A1111's names. What is null is not said; fields that nobody here reads are not in these structs."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

Picture = Annotated[str, Meta(description="PNG, JPEG or WebP, as bare base64 or as a data URI")]
Size = Annotated[int, Meta(ge=1)]


class Asked(Struct, kw_only=True):
    """What both ways of making pictures read."""

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    """-1: a random one."""
    sampler_name: str | None = None
    sampler_index: str | None = None
    """Its older name."""
    scheduler: str | None = None
    batch_size: Size | None = None
    n_iter: Size | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = None
    infotext: str | None = None
    """A1111's text of a picture; what the request itself leaves open is taken from it."""
    send_images: bool | None = None


class TextToImage(Asked, kw_only=True):
    """The body of ``txt2img``."""


class ImageToImage(Asked, kw_only=True):
    """The body of ``img2img``."""

    init_images: list[Picture] | None = None
    mask: Picture | None = None
    denoising_strength: float | None = None
    inpainting_mask_invert: int | None = None
    """1: what is not masked is painted anew."""
    include_init_images: bool | None = None


class Generated(Struct, kw_only=True):
    """What both answer."""

    images: list[str]
    parameters: dict[str, Any]
    """The request's own fields."""
    info: str
    """JSON: the seeds, and each picture's text."""


class State(Struct, kw_only=True):
    """Of the job that runs."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class Progress(Struct, kw_only=True):
    """How far it is."""

    progress: float = 0.0
    eta_relative: float = 0.0
    state: State
    current_image: str | None = None
    textinfo: str | None = None


class Checkpoint(Struct, kw_only=True):
    """A model."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class Sampler(Struct, kw_only=True):
    """A way to step."""

    name: str
    aliases: list[str]
    options: dict[str, Any]


class Scheduler(Struct, kw_only=True):
    """How the noise is spread over the steps."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float = -1.0
    need_inner_model: bool = False


class Lora(Struct, kw_only=True):
    """An adapter."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any]


class Upscaler(Struct, kw_only=True):
    """There is none but the one that does nothing."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float = 1.0


class Options(Struct, kw_only=True):
    """What can be chosen for later requests, and what clients look for beside it."""

    sd_model_checkpoint: str | None = None
    CLIP_stop_at_last_layers: int = 1
    sd_checkpoint_hash: str = ""
    sd_vae: str = "Automatic"
    samples_format: str = "png"
    live_previews_enable: bool = True
    return_grid: bool = False


class Choice(Struct, kw_only=True):
    """What is chosen for later requests. Clients send all other options back with it, as they were told."""

    sd_model_checkpoint: str | None = None
    CLIP_stop_at_last_layers: Annotated[int, Meta(ge=1, le=12)] | None = None


class PictureAsked(Struct, kw_only=True):
    """The body of ``png-info``."""

    image: Picture


class PictureTold(Struct, kw_only=True):
    """What stands in a picture."""

    info: str
    items: dict[str, str]
    parameters: dict[str, str]


class Embeddings(Struct, kw_only=True):
    """There are none."""

    loaded: dict[str, Any]
    skipped: dict[str, Any]


class Scripts(Struct, kw_only=True):
    """There are none."""

    txt2img: list[str]
    img2img: list[str]


class Memory(Struct, kw_only=True):
    """Of the machine."""

    ram: dict[str, Any]
    cuda: dict[str, Any]


class Flags(Struct, kw_only=True):
    """Of the command line, for clients that look at them."""

    api: bool = True
    api_log: bool = False
    nowebui: bool = True
