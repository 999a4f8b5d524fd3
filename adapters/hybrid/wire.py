"""The structs of the hybrid API: requests as they come, replies as they are written. Unknown fields are ignored, and reported."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Kind = Literal["llm", "vlm", "embedding", "other"]


class Wire(Struct, omit_defaults=True, kw_only=True):
    """What is left at its default is not written."""


# Requests


class Picture(Wire):
    """One of a message's ``images``."""

    data_base64: Annotated[str, Meta(description="JPEG, PNG or WebP as bare base64, or as a data URL")]
    mime_type: Annotated[str, Meta(description="what the picture really is, is read off its bytes")] | None = None


class Message(Wire):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | None = None
    images: list[Picture] | None = None


class Config(Wire, rename="camel"):
    """How tokens are drawn."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    max_tokens: Annotated[int, Meta(ge=-(2**31), lt=2**31, description="0 or less: no limit")] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None


class ChatRequest(Wire):
    """The body of every ``/chat`` route."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model_key: Annotated[str, Meta(description="without one: the route's default model")] | None = None
    config: Config | None = None


class LoadRequest(Wire):
    """The body of ``/models/load``."""

    model_key: Annotated[str, Meta(min_length=1)]
    exclusive: Annotated[bool, Meta(description="unload all other models first")] | None = None


class UnloadRequest(Wire):
    """The body of ``/models/unload``: one model, or all."""

    model_key: str | None = None
    unload_all: bool | None = None


# Replies


class ChatReply(Struct):
    """A whole answer. ``predicted_tokens`` is null where nobody counted."""

    model: str
    content: str
    stop_reason: str
    predicted_tokens: int | None


class Fragment(Struct, tag_field="type", tag="fragment"):
    """A line of a stream: a piece of the answer."""

    content: str


class Done(Struct, tag_field="type", tag="done"):
    """The last line of a stream that went well."""

    model: str
    predicted_tokens: int | None
    stop_reason: str


class Failed(Struct, tag_field="type", tag="error"):
    """The last line of a stream that failed."""

    detail: str


class ModelRow(Wire):
    """A model that is loaded."""

    key: str
    display_name: str
    id: str
    name: str
    supported_loras: list[str] | UnsetType = UNSET
    loaded: bool | UnsetType = UNSET
    type: Kind | UnsetType = UNSET
    backend: str = ""
    architecture: str = ""
    quantization: str = ""
    context_length: int = 0
    size_bytes: Annotated[int, Meta(description="of memory")] = 0
    expires_at: Annotated[str, Meta(description="when it goes if nobody asks it; none: never")] | UnsetType = UNSET


class Loaded(Wire):
    """What became of a load."""

    loaded: bool
    model: ModelRow | UnsetType = UNSET
    error: str | UnsetType = UNSET


class Unloaded(Wire):
    """What became of an unload."""

    success: bool
    unloaded_keys: list[str]
    error: str | UnsetType = UNSET


class Health(Struct):
    """How the gateway is, and whether it can reach each place where models are."""

    status: Literal["ok"]
    backends: dict[str, Literal["ok", "unreachable"]]


class Route(Struct):
    """A row of ``/help``."""

    method: str
    path: str
    description: str


class Help(Struct):
    """What this API can be asked."""

    summary: str
    schema: str
    openapi: str
    routes: list[Route]
    notes: list[str]


# Errors


class Refused(Struct):
    """The body of an error."""

    detail: str


class Fault(Struct):
    """What is wrong with a body, and where."""

    type: str
    loc: list[str | int]
    msg: str


class Invalid(Struct):
    """The body of a 422."""

    detail: list[Fault]
