"""The routes of ``/v1/responses``, told. The events of its stream are written by hand: here they have structs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from adapters.responses import wire
from adapters.responses.kept import PAGE_LIMIT
from gateway.web.described.operation import ASKS, KEEPS, Operation, Operations, Parameter, frames, json, ok

Part = wire.OutputText | wire.ReasoningText | wire.SummaryText


class Deleted(Struct):
    """A response is no more."""

    id: str
    object: Literal["response"]
    deleted: bool


class Counted(Struct):
    """The tokens of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class Event(Struct, kw_only=True):
    """What all events have."""

    sequence_number: int


class ResponseEvent(Event, kw_only=True):
    """The response as it is: when it begins, and when it ends."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: wire.Response


class ItemEvent(Event, kw_only=True):
    """An item of the output begins, or is whole."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: wire.OutputItem


class Inside(Event, kw_only=True):
    """What events inside an item have."""

    item_id: str
    output_index: int


class PartEvent(Inside, kw_only=True):
    """A part of an item begins, or is whole."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: Part


class SummaryPartEvent(Inside, kw_only=True):
    """The same of a summary."""

    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    summary_index: int
    part: Part


class TextDelta(Inside, kw_only=True):
    """More text."""

    type: Literal["response.output_text.delta"]
    content_index: int
    delta: str
    logprobs: list[wire.Logprob]


class TextDone(Inside, kw_only=True):
    """The whole text."""

    type: Literal["response.output_text.done"]
    content_index: int
    text: str
    logprobs: list[wire.Logprob]


class ThoughtDelta(Inside, kw_only=True):
    """More of the thoughts."""

    type: Literal["response.reasoning_text.delta"]
    content_index: int
    delta: str


class ThoughtDone(Inside, kw_only=True):
    """The whole thoughts."""

    type: Literal["response.reasoning_text.done"]
    content_index: int
    text: str


class SummaryDelta(Inside, kw_only=True):
    """More of the thoughts, where a summary was asked for."""

    type: Literal["response.reasoning_summary_text.delta"]
    summary_index: int
    delta: str


class SummaryDone(Inside, kw_only=True):
    """The whole of them."""

    type: Literal["response.reasoning_summary_text.done"]
    summary_index: int
    text: str


class CallDelta(Inside, kw_only=True):
    """More of a call's arguments, or of its text."""

    type: Literal["response.function_call_arguments.delta", "response.custom_tool_call_input.delta"]
    delta: str


class ArgumentsDone(Inside, kw_only=True):
    """The whole arguments."""

    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class InputDone(Inside, kw_only=True):
    """The whole text of a call."""

    type: Literal["response.custom_tool_call_input.done"]
    input: str


class ErrorEvent(Event, kw_only=True):
    """What failed."""

    type: Literal["error"]
    code: str | None
    message: str
    param: str | None


EVENTS: tuple[Any, ...] = (
    ResponseEvent,
    ItemEvent,
    PartEvent,
    SummaryPartEvent,
    TextDelta,
    TextDone,
    ThoughtDelta,
    ThoughtDone,
    SummaryDelta,
    SummaryDone,
    CallDelta,
    ArgumentsDone,
    InputDone,
    ErrorEvent,
)

_QUERY = (
    Parameter("stream", "query", str, "`true`: tell it as a stream."),
    Parameter(
        "starting_after", "query", Annotated[int, Meta(ge=0, lt=10**9)], "The number of an event: go on after it."
    ),
)
_PAGE = (
    Parameter("limit", "query", Annotated[int, Meta(ge=1, le=PAGE_LIMIT)], "Items of one page."),
    Parameter("order", "query", Literal["asc", "desc"], "`desc`, the newest first, unless said otherwise."),
    Parameter("after", "query", str, "The id of an item: go on after it."),
)

PATHS: Operations = {
    "/responses": {
        "POST": Operation(
            "Answer, and keep the answer",
            "With `background` it is made while nobody waits.",
            body=wire.Request,
            needs=("model",),
            replies=ok(json(wire.Response), frames(*EVENTS), words="The response; a stream where `stream` is true."),
            errors=(*ASKS, 507),
            asks=True,
        )
    },
    "/responses/input_tokens": {
        "POST": Operation(
            "Count the tokens of a prompt",
            body=wire.Asks,
            needs=("model",),
            replies=ok(json(Counted)),
            errors=(*ASKS, 507),
        )
    },
    "/responses/compact": {"POST": Operation("Not served here", "Answers 501.", errors=(501,))},
    "/responses/{id:str}": {
        "GET": Operation(
            "A kept response",
            parameters=_QUERY,
            replies=ok(json(wire.Response), frames(*EVENTS)),
            errors=KEEPS,
        ),
        "DELETE": Operation("Delete a kept response", replies=ok(json(Deleted)), errors=KEEPS),
    },
    "/responses/{id:str}/cancel": {
        "POST": Operation("Call off a response that is being made", replies=ok(json(wire.Response)), errors=KEEPS)
    },
    "/responses/{id:str}/input_items": {
        "GET": Operation("What a kept response answers", parameters=_PAGE, replies=ok(json(wire.Page)), errors=KEEPS)
    },
}
