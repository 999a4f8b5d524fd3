"""What goes over the wire where pictures are made: the requests and events are the document's, and a few fields beside them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from adapters.brenda.picture_wire import Picture


class Lora(Struct, kw_only=True):
    """An adapter laid over the model."""

    name: str
    weight: float | None = None
    """None: its own."""


class Request(Struct, kw_only=True):
    """What both requests have."""

    prompt: str
    negative_prompt: str | None = None
    steps: int | None = None
    model_type: str | None = None
    width: int | None = None
    height: int | None = None
    model: str | None = None
    """Not in the document: ``model_type``, as the other routes of pictures call it."""
    seed: int | None = None
    """Not in the document, as all that follow. -1: a random one, which the answer tells."""
    guidance_scale: float | None = None
    loras: list[Lora] | None = None


class GenerateRequest(Request, kw_only=True):
    """The body of ``/v1/images/generate``."""


class RefineRequest(Request, kw_only=True):
    """The body of ``/v1/images/refine``. Without a size the picture keeps its own, as far as the model can."""

    image: Picture
    strength: float | None = None


class Painted(Struct, kw_only=True):
    """The last event: the picture, a PNG. All but the first two are not in the document: what it was made with."""

    status: Literal["completed"] = "completed"
    image: Annotated[str, Meta(description="PNG, as base64")]
    model: str
    seed: int | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    guidance_scale: float | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    warnings: list[str] | UnsetType = UNSET
    """What was asked and could not be wholly done."""
