"""The Anthropic dialect, told. The events of its stream are written by hand: here they have structs."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from adapters.anthropic import wire
from gateway.web.described.operation import ASKS, LOOKS, Operation, Operations, Parameter, frames, json, ok, read


class Error(Struct):
    """What failed, and why; also the last event of a stream that fails."""

    type: Literal["error"]
    error: wire.ErrorObject
    request_id: str | UnsetType = UNSET


class Counted(Struct):
    """The tokens of a prompt."""

    input_tokens: int


class Begun(Struct, kw_only=True):
    """The answer when it begins: nothing is said yet."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Any]
    stop_reason: None
    stop_sequence: None
    usage: dict[str, Any]


class MessageStart(Struct, tag_field="type", tag="message_start"):
    """The answer begins."""

    message: Begun


class Ping(Struct, tag_field="type", tag="ping"):
    """The server is still there."""


class BlockStart(Struct, tag_field="type", tag="content_block_start"):
    """A block begins."""

    index: int
    content_block: wire.TextBlock | wire.ThinkingBlock | wire.RedactedBlock | wire.ToolUseBlock


class TextDelta(Struct, tag_field="type", tag="text_delta"):
    """More text."""

    text: str


class ThinkingDelta(Struct, tag_field="type", tag="thinking_delta"):
    """More of the thoughts."""

    thinking: str


class SignatureDelta(Struct, tag_field="type", tag="signature_delta"):
    """What proves the thoughts."""

    signature: str


class InputDelta(Struct, tag_field="type", tag="input_json_delta"):
    """More of a call's arguments, as JSON text."""

    partial_json: str


class BlockDelta(Struct, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputDelta


class BlockStop(Struct, tag_field="type", tag="content_block_stop"):
    """A block is whole."""

    index: int


class Ending(Struct):
    """How the answer ends."""

    stop_reason: str | None
    stop_sequence: str | None


class MessageDelta(Struct, tag_field="type", tag="message_delta"):
    """How the answer ends, and what it took."""

    delta: Ending
    usage: dict[str, Any]


class MessageStop(Struct, tag_field="type", tag="message_stop"):
    """The answer is whole."""


EVENTS: tuple[Any, ...] = (MessageStart, Ping, BlockStart, BlockDelta, BlockStop, MessageDelta, MessageStop, Error)
_BETAS = Parameter("anthropic-beta", "header", str, "Names of trial features, for a server of the vendor's.")

_PATHS: Operations = {
    "/messages": {
        "POST": Operation(
            "Answer a conversation",
            body=wire.MessagesRequest,
            needs=("model",),
            parameters=(_BETAS,),
            replies=ok(json(wire.Reply), frames(*EVENTS), words="The answer; a stream where `stream` is true."),
            errors=ASKS,
            asks=True,
        )
    },
    "/messages/count_tokens": {
        "POST": Operation(
            "Count the tokens of a prompt",
            body=wire.CountRequest,
            needs=("model",),
            parameters=(_BETAS,),
            replies=ok(json(Counted)),
            errors=ASKS,
        )
    },
}

DESCRIBED: Operations = {
    **{f"{base}{path}": methods for base in ("/v1", "/v1/v1") for path, methods in _PATHS.items()},
    "/v1/models": read(Operation("List the models", replies=ok(json(wire.ModelList)))),
    "/v1/models/{model:path}": read(Operation("Tell of a model", replies=ok(json(wire.ModelRow)), errors=LOOKS)),
}
