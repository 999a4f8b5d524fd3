"""The vendor's structs: a request, the items of a conversation, and the response object as it is written.

Source: OpenAI's API reference of Responses and the Python SDK 3.54. Unknown fields are ignored: clients are newer than
we are. What is only echoed stays undecoded.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from adapters.openai.wire import NO_RAW, Draw, Wire

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]

# Requests


class Tool(Wire):
    """One entry of ``tools``: flat, unlike that of a chat."""

    type: str = ""
    name: str | None = None
    description: str | None = None
    parameters: Raw = NO_RAW
    strict: bool | None = None
    format: Raw = NO_RAW


class Named(Wire):
    """One of the tools that ``tool_choice`` allows."""

    type: str = ""
    name: str | None = None


class ToolChoice(Wire):
    """``tool_choice`` as an object."""

    type: str = ""
    name: str | None = None
    mode: str | None = None
    tools: list[Named] | None = None


class Format(Wire):
    """``text.format``."""

    type: str = "text"
    name: str | None = None
    schema: Raw = NO_RAW
    strict: bool | None = None


class Text(Wire):
    """``text``; clients send it empty."""

    format: Format | None = None


class Reasoning(Wire):
    """``reasoning``."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class StreamOptions(Wire):
    """``stream_options``: there are some, none of which is followed."""


class Asks(Draw, kw_only=True):
    """What a question and the counting of its tokens share."""

    model: str | None = None
    input: str | list[Raw] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: str | None = None


class Request(Asks, kw_only=True):
    """The body of ``POST /v1/responses``."""

    max_output_tokens: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


class Echo(Wire):
    """The fields of a request that its response repeats as they came."""

    tools: Raw = NO_RAW
    tool_choice: Raw = NO_RAW
    text: Raw = NO_RAW
    metadata: Raw = NO_RAW
    instructions: Raw = NO_RAW


# Items


class Kind(Wire):
    """What every item may have. A message may leave out its type."""

    type: str | None = None
    id: str | None = None
    status: str | None = None


class File(Wire):
    """The object of an ``input_audio`` part."""

    data: str
    format: str = ""


class Part(Wire):
    """A part of a message's content, of a tool's output, or of thoughts."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: File | None = None
    annotations: Raw = NO_RAW
    logprobs: Raw = NO_RAW


class Message(Kind, kw_only=True):
    """An item of type ``message``, or of none."""

    role: str
    content: str | list[Part] | None = None


class Call(Kind, kw_only=True):
    """``function_call``, and ``custom_tool_call`` with its ``input``."""

    name: str
    call_id: str | None = None
    arguments: Any = None
    input: str | None = None


class CallOutput(Kind, kw_only=True):
    """``function_call_output`` and ``custom_tool_call_output``."""

    call_id: str
    output: str | list[Part] | None = None


class Thoughts(Kind, kw_only=True):
    """``reasoning``."""

    summary: list[Part] | None = None
    content: list[Part] | None = None
    encrypted_content: str | None = None


# Answers, as they are written


class Alternative(Struct):
    """One of ``top_logprobs``."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | UnsetType | None = UNSET


class Logprob(Struct):
    """A token of an ``output_text``; the stream leaves ``bytes`` out."""

    token: str
    logprob: float
    top_logprobs: list[Alternative]
    bytes: tuple[int, ...] | UnsetType | None = UNSET


class OutputText(Struct, tag="output_text"):
    """A text of the answer."""

    text: str
    annotations: tuple[()] = ()
    logprobs: list[Logprob] = []


class ReasoningText(Struct, tag="reasoning_text"):
    """A text of the thoughts."""

    text: str


class SummaryText(Struct, tag="summary_text"):
    """The same where the client asked for a summary."""

    text: str


class MessageItem(Struct, tag="message", kw_only=True):
    """What the model says."""

    id: str
    status: str
    role: str = "assistant"
    content: list[OutputText]


class ReasoningItem(Struct, tag="reasoning", kw_only=True):
    """What the model thinks."""

    id: str
    status: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    encrypted_content: str | UnsetType = UNSET


class CallItem(Struct, tag="function_call", kw_only=True):
    """A function that the model calls."""

    id: str
    status: str
    call_id: str
    name: str
    arguments: str


class CustomItem(Struct, tag="custom_tool_call", kw_only=True):
    """The same for a tool that takes plain text."""

    id: str
    status: str
    call_id: str
    name: str
    input: str


OutputItem = MessageItem | ReasoningItem | CallItem | CustomItem


class InputDetails(Struct):
    """``input_tokens_details``: always there, or Codex cannot read the end of a stream."""

    cached_tokens: int = 0


class OutputDetails(Struct):
    """``output_tokens_details``: likewise."""

    reasoning_tokens: int = 0


class Usage(Struct, kw_only=True):
    """Tokens of the answer."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Failure(Struct):
    """``error`` of a response that failed."""

    code: str
    message: str


class Incomplete(Struct):
    """``incomplete_details``."""

    reason: str


class ReasoningEcho(Struct):
    """``reasoning``, as the response repeats it."""

    effort: str | None = None
    summary: str | None = None


class Response(Struct, kw_only=True):
    """The response object, whole."""

    id: str
    object: str = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool = False
    error: Failure | None = None
    incomplete_details: Incomplete | None = None
    instructions: Raw
    max_output_tokens: int | None = None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    reasoning: ReasoningEcho
    store: bool
    temperature: float | None = None
    text: Raw
    tool_choice: Raw
    tools: Raw
    top_logprobs: int = 0
    top_p: float | None = None
    truncation: str = "disabled"
    usage: Usage | None = None
    user: str | None = None
    metadata: Raw


class Page(Struct, kw_only=True):
    """A page of input items."""

    object: str = "list"
    data: list[Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool
