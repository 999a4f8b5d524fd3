"""The Ollama dialect, told. Its answers are written by hand: here they have structs."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.ollama import wire
from gateway.web.described.operation import (
    ASKS,
    BYTES,
    CHANGES,
    KEEPS,
    LOOKS,
    Form,
    Operation,
    Operations,
    Parameter,
    Reply,
    json,
    lines,
    ok,
    read,
    text,
)


class Error(Struct):
    """What failed, and why; also the last line of a stream that fails."""

    error: str


class Version(Struct):
    """The release of Ollama whose API this is."""

    version: str


class Cloud(Struct):
    """Whether models of the vendor's cloud can be used."""

    disabled: bool
    source: str


class Status(Struct):
    """What is switched off."""

    cloud: Cloud


class Recommendations(Struct):
    """Models that the vendor recommends: none."""

    recommendations: list[Raw]


class SaidCall(Struct):
    """The function of a call."""

    index: int
    name: str
    arguments: dict[str, Any]


class Called(Struct):
    """A tool call, whole."""

    id: str
    function: SaidCall


class Said(Struct, kw_only=True):
    """What the model says in a line, or in all."""

    role: str
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[Called] | UnsetType = UNSET


class Line(Struct, kw_only=True):
    """What the lines of both routes have. The last has ``done``, the reason and what was counted."""

    model: str
    created_at: str
    done: bool
    done_reason: str | UnsetType = UNSET
    logprobs: list[wire.Logprob] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class ChatLine(Line, kw_only=True):
    """A line of a chat's answer, or all of it. Durations are nanoseconds."""

    message: Said


class GenerateLine(Line, kw_only=True):
    """A line of a continuation, or all of it. Durations are nanoseconds."""

    response: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[Called] | UnsetType = UNSET


_STREAMED = "The answer: lines, unless `stream` is false. Where there is nothing to answer, the model is only loaded."
_PROGRESS = ok(lines(wire.Progress, Error), json(wire.Progress), words="Progress: lines, unless `stream` is false.")
_EMPTY = ok(text("Nothing."))

DESCRIBED: Operations = {
    "/": read(Operation("Whether there is a server", replies=ok(text("`Ollama is running`")))),
    "/api/version": read(Operation("Whose API this is", replies=ok(json(Version)))),
    "/api/tags": read(
        Operation(
            "List the models",
            parameters=(
                Parameter("kinds", "query", Literal["all"], "Not Ollama's: also those that paint, translate and see."),
            ),
            replies=ok(json(wire.Tags)),
        )
    ),
    "/api/ps": {"GET": Operation("List the models in memory", replies=ok(json(wire.Running)))},
    "/api/show": {
        "POST": Operation("Tell of a model", body=wire.ShowRequest, replies=ok(json(wire.Shown)), errors=LOOKS)
    },
    "/api/chat": {
        "POST": Operation(
            "Answer a conversation",
            body=wire.ChatRequest,
            needs=("model",),
            replies=ok(lines(ChatLine, Error), json(ChatLine), words=_STREAMED),
            errors=ASKS,
            asks=True,
        )
    },
    "/api/generate": {
        "POST": Operation(
            "Answer a prompt, or continue it",
            body=wire.GenerateRequest,
            needs=("model",),
            replies=ok(lines(GenerateLine, Error), json(GenerateLine), words=_STREAMED),
            errors=ASKS,
            asks=True,
        )
    },
    "/api/embed": {
        "POST": Operation(
            "Turn texts into vectors",
            body=wire.EmbedRequest,
            needs=("model",),
            replies=ok(json(wire.EmbedReply)),
            errors=ASKS,
            asks=True,
        )
    },
    "/api/embeddings": {
        "POST": Operation(
            "Turn a text into a vector",
            body=wire.EmbeddingsRequest,
            needs=("model",),
            replies=ok(json(wire.EmbeddingsReply)),
            errors=ASKS,
            asks=True,
        )
    },
    "/api/me": {"POST": Operation("Who is signed in", "Nobody: answers 401.")},
    "/api/signout": {"POST": Operation("Sign out", replies=ok(json(dict[str, Any])))},
    "/api/user/keys/{key:path}": {"DELETE": Operation("Forget a key", replies=ok(json(dict[str, Any])))},
    "/api/status": {"GET": Operation("What is switched off", replies=ok(json(Status)))},
    "/api/experimental/model-recommendations": {
        "GET": Operation("What the vendor recommends", replies=ok(json(Recommendations)))
    },
    "/api/experimental/web_search": {"POST": Operation("Not served here", "Answers 403.")},
    "/api/experimental/web_fetch": {"POST": Operation("Not served here", "Answers 403.")},
    "/api/pull": {"POST": Operation("Fetch a model", body=wire.TransferRequest, replies=_PROGRESS, errors=CHANGES)},
    "/api/push": {"POST": Operation("Publish a model", body=wire.TransferRequest, replies=_PROGRESS, errors=CHANGES)},
    "/api/create": {"POST": Operation("Make a model", body=wire.CreateRequest, replies=_PROGRESS, errors=CHANGES)},
    "/api/copy": {
        "POST": Operation(
            "Give a model a second name",
            body=wire.CopyRequest,
            needs=("source", "destination"),
            replies=_EMPTY,
            errors=CHANGES,
        )
    },
    "/api/delete": {"DELETE": Operation("Delete a model", body=wire.TransferRequest, replies=_EMPTY, errors=CHANGES)},
    "/api/blobs/{digest:str}": {
        "HEAD": Operation("Whether a file is there", replies=_EMPTY, errors=KEEPS),
        "POST": Operation(
            "Keep a file",
            body=Form(BYTES),
            replies={**_EMPTY, 201: Reply("It is new.", (text("Nothing."),))},
            errors=(*KEEPS, 409),
        ),
    },
}
