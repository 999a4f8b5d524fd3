"""What goes over the wire: OpenAI's chats with a ``system`` text beside the messages, and the objects of sessions and loads.

Source: the API's own document, in French, whose examples are in the tests.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from adapters.openai import wire


class ChatRequest(wire.ChatRequest, kw_only=True):
    """The body of ``/v1/chat/completions``: OpenAI's, with its roles and ``ai``."""

    system: str | None = None
    """Instructions in the place of all that the messages have; an empty text: none at all."""


class Models(Struct):
    """``GET /v1/models``."""

    models: list[str]


class Session(Struct):
    """``GET /v1/session``."""

    session_id: str
    current_model: str | None
    has_model_loaded: bool


class Stopped(Struct):
    """``POST /v1/stop``."""

    status: Literal["stopped"] = "stopped"


class Progress(Struct):
    """An event of a load: how far the download is, or the load behind it."""

    progress: Annotated[float, Meta(ge=0, le=1)]


class Status(Struct):
    """An event of a load: the model was on disk already, has come, is in memory."""

    status: Literal["exists", "completed", "loaded"]


class Error(Struct):
    """What failed: the body of a refused request, and the last event of a stream that breaks off."""

    error: str
