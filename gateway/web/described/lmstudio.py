"""LM Studio's REST, told. The events of its stream are written by hand: here they have structs."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from adapters.lmstudio import wire
from adapters.openai import wire as openai_wire
from gateway.web.described import openai
from gateway.web.described.operation import ASKS, CHANGES, LOOKS, Operation, Operations, frames, json, ok, read


class Error(Struct):
    """What failed, and why; of a path or method that there is not, only the words."""

    error: wire.ErrorObject | str


class Begun(Struct):
    """The answer, or the load of its model, begins."""

    type: Literal["chat.start", "model_load.start"]
    model_instance_id: str


class Loading(Struct):
    """How far the load is, from 0 to 1."""

    type: Literal["model_load.progress"]
    model_instance_id: str
    progress: float


class LoadedEvent(Struct):
    """The model is loaded."""

    type: Literal["model_load.end"]
    model_instance_id: str
    load_time_seconds: float


class Step(Struct):
    """The prompt's reading, a text or the thoughts begin or end."""

    type: Literal[
        "prompt_processing.start",
        "prompt_processing.end",
        "message.start",
        "message.end",
        "reasoning.start",
        "reasoning.end",
    ]


class Piece(Struct):
    """More of a text, or of the thoughts."""

    type: Literal["message.delta", "reasoning.delta"]
    content: str


class FailedCall(Struct):
    """The model calls a tool that nobody offered."""

    type: Literal["tool_call.failure"]
    reason: str
    metadata: wire.CallMetadata


class ErrorEvent(Struct):
    """What failed."""

    type: Literal["error"]
    error: wire.ErrorObject


class Ended(Struct):
    """The whole answer."""

    type: Literal["chat.end"]
    result: wire.Result


EVENTS: tuple[Any, ...] = (Begun, Loading, LoadedEvent, Step, Piece, FailedCall, ErrorEvent, Ended)


class OldChat(openai.Chat, kw_only=True):
    """OpenAI's answer, with figures."""

    stats: wire.OldStats
    model_info: wire.About
    runtime: wire.Runtime


class OldText(openai.Text, kw_only=True):
    """OpenAI's continuation, with figures."""

    stats: wire.OldStats
    model_info: wire.About
    runtime: wire.Runtime


class OldChatPiece(openai.ChatPiece, kw_only=True):
    """OpenAI's frame, the last of a choice with figures."""

    stats: wire.OldStats | UnsetType = UNSET
    model_info: wire.About | UnsetType = UNSET
    runtime: wire.Runtime | UnsetType = UNSET


class OldTextPiece(openai.TextPiece, kw_only=True):
    """OpenAI's frame, the last of a choice with figures."""

    stats: wire.OldStats | UnsetType = UNSET
    model_info: wire.About | UnsetType = UNSET
    runtime: wire.Runtime | UnsetType = UNSET


DESCRIBED: Operations = {
    "/api/v0/models": read(Operation("List the models", replies=ok(json(wire.OldList)), error=openai.Error)),
    "/api/v0/models/{model:path}": read(
        Operation("Tell of a model", replies=ok(json(wire.OldRow)), errors=LOOKS, error=openai.Error)
    ),
    "/api/v0/chat/completions": {
        "POST": Operation(
            "Answer a conversation, with figures",
            body=openai_wire.ChatRequest,
            needs=("model",),
            replies=ok(json(OldChat), frames(OldChatPiece, openai.Error)),
            errors=ASKS,
            error=openai.Error,
            asks=True,
        )
    },
    "/api/v0/completions": {
        "POST": Operation(
            "Continue a text, with figures",
            body=openai_wire.CompletionRequest,
            needs=("model",),
            replies=ok(json(OldText), frames(OldTextPiece, openai.Error)),
            errors=ASKS,
            error=openai.Error,
            asks=True,
        )
    },
    "/api/v0/embeddings": {
        "POST": Operation(
            "Turn texts into vectors",
            body=openai_wire.EmbeddingsRequest,
            needs=("model",),
            replies=ok(json(openai_wire.EmbeddingsReply)),
            errors=ASKS,
            error=openai.Error,
            asks=True,
        )
    },
    "/api/v1/chat": {
        "POST": Operation(
            "Answer, and keep the answer",
            body=wire.ChatRequest,
            needs=("model", "input"),
            replies=ok(json(wire.Result), frames(*EVENTS), words="The answer; a stream where `stream` is true."),
            errors=(*ASKS, 507),
            asks=True,
        )
    },
    "/api/v1/models": read(Operation("List the models, and what is loaded", replies=ok(json(wire.ModelList)))),
    "/api/v1/models/load": {
        "POST": Operation(
            "Load a model",
            body=wire.LoadRequest,
            needs=("model",),
            replies=ok(json(wire.Loaded)),
            errors=ASKS,
            asks=True,
        )
    },
    "/api/v1/models/unload": {
        "POST": Operation(
            "Unload a model",
            body=wire.UnloadRequest,
            needs=("instance_id",),
            replies=ok(json(wire.Unloaded)),
            errors=LOOKS,
        )
    },
    "/api/v1/models/download": {
        "POST": Operation(
            "Fetch a model, while nobody waits",
            body=wire.DownloadRequest,
            needs=("model",),
            replies=ok(json(wire.Job)),
            errors=CHANGES,
        )
    },
    "/api/v1/models/download/status/{job_id:str}": {
        "GET": Operation("How far a download is", replies=ok(json(wire.Job)), errors=(404,))
    },
}
