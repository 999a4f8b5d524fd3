"""The image-job API's own field names, nothing else. Unknown fields are ignored: what came with a picture is taken back whole."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

Celery = Literal["PENDING", "PROGRESS", "SUCCESS", "FAILURE", "REVOKED"]
"""In which words the state of a job is told."""
Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
"""The same in words for people."""


class Lora(Struct, kw_only=True):
    """One adapter of the stack."""

    name: Annotated[str, Meta(min_length=1, description="its id, as `GET /loras` lists it")]
    weight: Annotated[float | None, Meta(description="without one: its own default")] = None


class GenerateRequest(Struct, kw_only=True):
    """``POST /generate``. What is left out is as the model's preset says."""

    prompt: str
    model: Annotated[str | None, Meta(description="without one: the default model that paints")] = None
    negative_prompt: str | None = None
    loras: Annotated[list[Lora] | None, Meta(description="LoRA or LyCORIS, at most 4; their order means nothing")] = (
        None
    )
    steps: Annotated[int | None, Meta(description="1 to 500")] = None
    guidance_scale: Annotated[float | None, Meta(description="0 to 100")] = None
    guidance_rescale: Annotated[float | None, Meta(description="0 to 1")] = None
    seed: Annotated[int | None, Meta(description="0 to 4294967295; none, or -1: a random one, which is told")] = None
    width: Annotated[int | None, Meta(description="a multiple of 8")] = None
    height: Annotated[int | None, Meta(description="a multiple of 8")] = None
    sampler: Annotated[str | None, Meta(description="one of the model's `samplers`")] = None
    scheduler: Annotated[str | None, Meta(description="another word for `sampler`")] = None
    clip_skip: Annotated[int | None, Meta(description="1 to 12, counted as A1111 does")] = None
    n: Annotated[int | None, Meta(description="1 to 10 pictures; each has the seed of the one before plus 1")] = None
    image: Annotated[
        str | None, Meta(description="what it starts from: PNG, JPEG or WebP as base64 or as a data URL")
    ] = None
    mask: Annotated[str | None, Meta(description="what of `image` is painted anew: where it is white")] = None
    mask_alpha: Annotated[bool | None, Meta(description="where it is transparent instead")] = None
    mask_invert: Annotated[bool | None, Meta(description="the other way round")] = None
    strength: Annotated[float | None, Meta(description="how much of `image` is given up, above 0 to 1")] = None
    reference: Annotated[str | None, Meta(description="a picture to take after, through an IP-Adapter")] = None
    reference_scale: Annotated[float | None, Meta(description="how much, 0 to 1")] = None
    previews: Annotated[int | None, Meta(description="half-finished pictures to make on the way, 0 to 10")] = None


class Progress(Struct, kw_only=True):
    """How far a job is, in steps of all its pictures."""

    current: int
    total: int
    percent: Annotated[int, Meta(ge=0, le=100)]


class Picture(Struct, kw_only=True):
    """A finished picture."""

    index: int
    filename: str
    seed: int | None
    size: Annotated[int, Meta(description="bytes")]
    metadata: Annotated[Raw, Meta(extra_json_schema={"type": "object"}, description="what it was made from")]
    warnings: list[str]


class Outcome(Struct, kw_only=True):
    """The pictures that there are; the first is also told by itself."""

    filename: str
    seed: int | None
    metadata: Annotated[Raw, Meta(extra_json_schema={"type": "object"}, description="what it was made from")]
    filenames: list[str]
    images: list[Picture]


class Job(Struct, kw_only=True):
    """``GET /status/{job_id}``, a row of ``GET /jobs``, and the data of an event."""

    job_id: str
    state: Celery
    status: Status
    meta: Progress
    result: Outcome | None
    error: str | None
    position: Annotated[int, Meta(description="jobs before it in the queue")]
    estimate: Annotated[float | None, Meta(description="seconds until it is done, as far as that can be told")]
    note: Annotated[str | None, Meta(description="what it waits for, where that is not its turn")]
    model: str
    seed: int | None
    n: int
    created_at: str
    started_at: str | None
    finished_at: str | None


class Event(Job, kw_only=True, omit_defaults=True):
    """The data of an event, with a half-finished picture where they were asked for."""

    preview: Annotated[str | None, Meta(description="a data URL; at `index`")] = None
    index: int | None = None


class JobList(Struct, kw_only=True):
    """``GET /jobs``, the newest first."""

    jobs: list[Job]
    next: Annotated[str | None, Meta(description="`after` of the next page; null: there is none")]


class Removed(Struct, kw_only=True):
    """The answer of ``DELETE /jobs/{job_id}`` where the job was over: it and its pictures are gone."""

    job_id: str
    status: Literal["removed"] = "removed"


class Processing(Struct, kw_only=True):
    """The answer of ``GET /image/{job_id}`` until there is a picture."""

    status: Literal["processing"] = "processing"
    message: str
    state: Celery
    meta: Progress


class Failed(Struct, kw_only=True):
    """The answer of ``GET /image/{job_id}`` where there will be none."""

    status: Literal["failed", "cancelled"]
    error: str


class Defaults(Struct, kw_only=True):
    """What is taken where a request says nothing."""

    steps: int | None
    guidance_scale: float | None
    width: int | None
    height: int | None
    sampler: str | None
    clip_skip: int | None
    negative_prompt: str


class Model(Struct, kw_only=True):
    """A row of ``GET /models``."""

    id: str
    name: str
    supported_loras: list[str]
    loaded: bool
    samplers: list[str]
    defaults: Defaults
    max_pixels: Annotated[int | None, Meta(description="width times height; null: not known")]
    references: Annotated[bool, Meta(description="whether it takes a `reference`")]


class ModelList(Struct, kw_only=True):
    """``GET /models``."""

    models: list[Model]


class LoraRow(Struct, kw_only=True):
    """A row of ``GET /loras``."""

    id: str
    name: str
    default_weight: float
    trigger_words: list[str] | None
    kind: Annotated[str, Meta(description="`lora`, or the LyCORIS algorithm")]


class LoraList(Struct, kw_only=True):
    """``GET /loras``."""

    loras: list[LoraRow]


class Queue(Struct, kw_only=True):
    """What there is to do, of all keys."""

    status: Annotated[Literal["ok", "unreachable"], Meta(description="whether workers can be given jobs")]
    waiting: int
    running: int


class Health(Struct, kw_only=True):
    """``GET /health``."""

    status: Literal["ok", "degraded"]
    backends: dict[str, Literal["ok", "unreachable"]]
    queue: Queue | None


class Refused(Struct, kw_only=True):
    """The body of an error."""

    status: Literal["failed"] = "failed"
    error: str
    detail: str


class Fault(Struct, kw_only=True):
    """What is wrong with a request, and where."""

    type: str
    loc: list[str | int]
    msg: str


class Invalid(Struct, kw_only=True):
    """The body of a 422."""

    status: Literal["failed"] = "failed"
    error: str
    detail: list[Fault]
