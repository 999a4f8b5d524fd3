"""The vendor's structs: requests, whole replies as we write them, and replies as servers send them (``Seen…``).

Source: Anthropic's API reference (Messages, Token counting, Models) and the official SDK for Python 2.x. Unknown fields are
ignored: clients are newer than we are. ``Raw`` stands where the type depends on a block's kind.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

NO_RAW = Raw()
"""A raw field that was not there. (msgspec cannot decode ``Raw | None``.)"""

Count = Annotated[int, Meta(ge=1, lt=2**31)]

# What is checked by hand, since its errors have words of their own: the structs only tell of it.
Role = Annotated[str, Meta(extra_json_schema={"enum": ["user", "assistant", "system"]})]
BlockType = Annotated[
    str,
    Meta(
        examples=["text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result"],
        description="What the block is, on which depends what fields it has.",
    ),
]
ChoiceType = Annotated[str, Meta(extra_json_schema={"enum": ["auto", "any", "none", "tool"]})]
Schema = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]}, description="A JSON Schema.")]


class Wire(Struct, omit_defaults=True, kw_only=True):
    """What is left at its default is not written."""


# Requests


class Block(Wire):
    """A content block of any kind; which fields it has depends on ``type``."""

    type: BlockType
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = NO_RAW
    tool_use_id: str | None = None
    is_error: bool | None = None
    title: str | None = None
    source: Raw = NO_RAW
    content: Raw = NO_RAW


class Source(Wire):
    """The ``source`` of an image or a document; ``content`` is a text or blocks."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[Block] | None = None


class Message(Wire):
    """A turn."""

    role: Role
    content: str | list[Block]


class Tool(Wire):
    """One entry of ``tools``; the vendor's own tools have a ``type`` and no schema."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: Schema = NO_RAW
    strict: bool | None = None


class ToolChoice(Wire):
    """``tool_choice``."""

    type: ChoiceType
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Wire):
    """``thinking``: enabled (with a budget of tokens), disabled, adaptive or between_tools."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class Format(Wire):
    """The form of the answer."""

    type: str
    schema: Schema = NO_RAW


class OutputConfig(Wire):
    """``output_config``."""

    effort: str | None = None
    format: Format | None = None


class CountRequest(Wire, kw_only=True):
    """The body of ``/v1/messages/count_tokens``."""

    model: str | None = None
    messages: Annotated[list[Message], Meta(extra_json_schema={"minItems": 1})]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None


class MessagesRequest(CountRequest, kw_only=True):
    """The body of ``/v1/messages``."""

    max_tokens: Count | None = None
    """The vendor demands it; here, as with other local servers, it may be left out."""
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=2**31)] | None = None


# Replies, as they are written. No field is left out at its default: the SDK fails without an empty ``text``.


class TextBlock(Struct, tag_field="type", tag="text"):
    """Text of an answer."""

    text: str


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """A thought of an answer."""

    thinking: str
    signature: str


class RedactedBlock(Struct, tag_field="type", tag="redacted_thinking"):
    """A thought that only its vendor can read."""

    data: str


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    """A tool call of an answer; ``input`` is an object."""

    id: str
    name: str
    input: Raw


class OutputDetails(Struct):
    """``output_tokens_details``."""

    thinking_tokens: int


class Usage(Struct, kw_only=True):
    """Tokens of the whole answer; ``input_tokens`` leaves out those read from a cache."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens_details: OutputDetails | UnsetType = UNSET


class Reply(Struct, kw_only=True):
    """A whole answer."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock]
    stop_reason: str
    stop_sequence: str | None
    usage: Usage


class ErrorObject(Struct):
    """What stands under ``error``."""

    type: str
    message: str


class ModelRow(Struct, kw_only=True):
    """A row of ``/v1/models``."""

    type: str = "model"
    id: str
    display_name: str
    created_at: str
    lifecycle: str = "active"
    max_input_tokens: int | UnsetType = UNSET


class ModelList(Struct, kw_only=True):
    """``/v1/models``: always one page."""

    data: list[ModelRow]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


# Replies as servers send them: any field may be missing or null.


class SeenDetails(Struct, gc=False):
    """``output_tokens_details``."""

    thinking_tokens: int | None = None


class SeenUsage(Struct, gc=False):
    """Usage, of which a stream's later records tell more."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens_details: SeenDetails | None = None


class SeenBlock(Struct):
    """A content block, whole or at its start."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class SeenMessage(Struct):
    """A whole answer, or the one of ``message_start``."""

    model: str | None = None
    content: list[SeenBlock] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: SeenUsage | None = None
    error: Any = None


class SeenDelta(Struct):
    """The ``delta`` of a block or of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class SeenRecord(Struct):
    """A record of a stream."""

    type: str = ""
    index: int = 0
    message: SeenMessage | None = None
    content_block: SeenBlock | None = None
    delta: SeenDelta | None = None
    usage: SeenUsage | None = None
    error: Any = None


class SeenCount(Struct):
    """The answer of ``count_tokens``."""

    input_tokens: int


class SeenModel(Struct):
    """A row of a server's catalog; some servers of this dialect list their models in OpenAI's shape."""

    id: str
    created_at: str | None = None
    created: float | None = None
    max_input_tokens: int | None = None


class SeenModels(Struct):
    """A server's catalog."""

    data: list[SeenModel] | None = None
    error: Any = None


class SeenError(Struct):
    """What stands under ``error``."""

    type: str | None = None
    message: str | None = None
