"""The OpenAI dialect, told. Its streams' frames are written by hand: here they have structs."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from adapters.openai import wire
from adapters.openai.rerank import RerankReply, RerankRequest, Row
from gateway.web.described import openai_images, responses
from gateway.web.described.operation import ASKS, LOOKS, Operation, Operations, frames, json, ok, read


class Error(Struct):
    """What failed, and why."""

    error: wire.ErrorObject


class Chat(wire.Reply, kw_only=True):
    """A whole answer of a chat."""

    choices: list[wire.Choice]


class Text(wire.Reply, kw_only=True):
    """A whole continuation of a text."""

    choices: list[wire.TextChoice]


class CallPiece(Struct, kw_only=True):
    """A piece of a tool call: the first has its id and name, the others more of its arguments."""

    index: int
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: FunctionPiece


class FunctionPiece(Struct, kw_only=True):
    """The function of a piece of a call."""

    name: str | UnsetType = UNSET
    arguments: str


class Delta(Struct, kw_only=True):
    """What is new in a choice."""

    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET
    function_call: FunctionPiece | UnsetType = UNSET


class ChatPieceChoice(Struct, kw_only=True):
    """A choice in a piece of a stream."""

    index: int
    delta: Delta
    logprobs: wire.Logprobs | None
    finish_reason: str | None


class TextPieceChoice(Struct, kw_only=True):
    """A choice in a piece of a stream."""

    index: int
    text: str
    logprobs: wire.TextLogprobs | None
    finish_reason: str | None


class Piece(Struct, kw_only=True):
    """What all frames of a stream have. ``usage`` comes where the request asks for it, in the last frame alone as numbers."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    usage: wire.Usage | UnsetType | None = UNSET


class ChatPiece(Piece, kw_only=True):
    """A frame of a chat's stream."""

    choices: list[ChatPieceChoice]


class TextPiece(Piece, kw_only=True):
    """A frame of a continuation's stream."""

    choices: list[TextPieceChoice]


_DONE = (
    "Server-sent events; what is described is the data of each. After the last comes `[DONE]`; after an error, nothing."
)
_CHAT = Operation(
    "Answer a conversation",
    body=wire.ChatRequest,
    needs=("model",),
    replies=ok(json(Chat), frames(ChatPiece, Error, words=_DONE), words="The answer; a stream where `stream` is true."),
    errors=ASKS,
    asks=True,
)
_COMPLETION = Operation(
    "Continue a text",
    body=wire.CompletionRequest,
    needs=("model",),
    replies=ok(json(Text), frames(TextPiece, Error, words=_DONE), words="The text; a stream where `stream` is true."),
    errors=ASKS,
    asks=True,
)
_EMBEDDINGS = Operation(
    "Turn texts into vectors",
    body=wire.EmbeddingsRequest,
    needs=("model",),
    replies=ok(json(wire.EmbeddingsReply)),
    errors=ASKS,
    asks=True,
)
_RERANK = Operation(
    "Rank documents by how well they answer a query",
    "The form of Jina, Cohere, vLLM and llama-server; with `texts` that of TEI, whose answer is a bare list.",
    body=RerankRequest,
    replies=ok(json(RerankReply, list[Row])),
    errors=ASKS,
    asks=True,
)
_MODELS = read(Operation("List the models", replies=ok(json(wire.ModelList))))
_MODEL = Operation("Tell of a model", replies=ok(json(wire.ModelRow)), errors=LOOKS)
_NOT_HERE = Operation("Not served here", "Answers 501.", errors=(404, 501))

_PATHS: Operations = {
    "/chat/completions": {"POST": _CHAT},
    "/completions": {"POST": _COMPLETION},
    "/embeddings": {"POST": _EMBEDDINGS},
    "/rerank": {"POST": _RERANK},
    "/reranking": {"POST": _RERANK},
    "/models": _MODELS,
    "/models/{model:path}": {**read(_MODEL), "DELETE": _NOT_HERE},
    "/moderations": {"POST": _NOT_HERE},
    **responses.PATHS,
}

DESCRIBED: Operations = {f"{base}{path}": methods for base in ("/v1", "") for path, methods in _PATHS.items()}
DESCRIBED.update(openai_images.DESCRIBED)
DESCRIBED["/v2/rerank"] = {"POST": _RERANK}
