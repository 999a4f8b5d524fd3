"""Us as server of ``/v1/responses``: what the gateway's routes import. The answer is worded by ``stream``.

A request may go on from an earlier response. Its items are given when the request is put together, so this half stays
without a store.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from adapters.dialect import CountAsk, Stamp
from adapters.openai.errors import error_body, error_status
from adapters.openai.fields import EFFORTS, missing, read_known, sampling, schema_text
from adapters.reading import Reading
from adapters.responses import wire
from adapters.responses.items import Conversation, item_ids, kept_items, owner_of, referred, resolved
from adapters.responses.kept import (
    deleted_reply,
    in_background,
    input_items,
    page_reply,
    response_items,
    with_status,
)
from adapters.responses.reply import frame
from adapters.responses.stream import ResponseStream
from adapters.responses.tools import read_tools
from adapters.responses.vocabulary import VOCABULARY
from canonical.errors import InvalidRequest, Unsupported
from canonical.limits import MESSAGES
from canonical.requests import Generate, Origin, Output, Sampling

__all__ = [
    "Question",
    "ResponseStream",
    "deleted_reply",
    "error_body",
    "error_status",
    "in_background",
    "input_items",
    "item_ids",
    "owner_of",
    "page_reply",
    "read_count",
    "read_create",
    "referred",
    "resolved",
    "response_items",
    "with_status",
]

ITEMS = 4 * MESSAGES
"""Items of one input: a message may be made of several. To look at each of a million takes seconds."""
_SEALED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = frozenset({_SEALED, _LOGPROBS})

_create = Reading(wire.Request, strict=False)  # "5" and 5.0 are seen for an int
_count = Reading(wire.Asks, strict=False)
_echo = msgspec.json.Decoder(wire.Echo)
_encode = msgspec.json.Encoder().encode


class _Lacking(Struct, frozen=True, kw_only=True):
    """A request as it came: it lacks what was said before."""

    request: wire.Asks
    body: bytes
    plain: bool

    @property
    def previous(self) -> str | None:
        """The response that this one goes on from."""
        return self.request.previous_response_id

    @property
    def items(self) -> list[Raw]:
        """The input, where it is a list."""
        given = self.request.input
        return given if isinstance(given, list) else []


class Question(_Lacking, frozen=True, kw_only=True):
    """A request for a response."""

    request: wire.Request

    @property
    def stream(self) -> bool:
        """Whether the answer is to come piece by piece."""
        return bool(self.request.stream)

    @property
    def background(self) -> bool:
        """Whether the answer is to be made while nobody waits."""
        return bool(self.request.background)

    @property
    def stored(self) -> bool | None:
        """Whether it is to be kept; None: not said, which means yes."""
        return self.request.store

    def kept(self, id: str) -> bytes:
        """The input as a JSON list of items with ids; made ones bear the response's."""
        return _encode(kept_items(self.request.input, id))

    def asked(self, history: Sequence[Raw] = (), items: Sequence[Raw] | None = None) -> Generate:
        """The canonical request behind ``history``. ``items`` are its own without references.

        Raises:
            InvalidRequest: an item or a tool breaks the format.
            Unsupported: it asks for what no backend can give.
        """
        request = self.request
        return _generate(
            self,
            history,
            items,
            drawn=sampling(request, request.max_output_tokens),
            stream=self.stream,
            top=self._top,
            lost=[f"include[{name[:80]}]" for name in request.include or () if name not in _INCLUDED],
        )

    def answer(self, stamp: Stamp, *, store: bool) -> ResponseStream:
        """How to word what comes."""
        request = self.request
        reasoning = request.reasoning or wire.Reasoning()
        custom = frozenset(tool.name for tool in request.tools or () if tool.type == "custom" and tool.name)
        return ResponseStream(
            stamp,
            frame=frame(request, _echo.decode(self.body)),
            store=store,
            custom=custom,
            top=self._top,
            summary=(reasoning.summary or reasoning.generate_summary) is not None,
            sealed=_SEALED in (request.include or ()),
        )

    @property
    def _top(self) -> int | None:
        top = self.request.top_logprobs
        return (top or 0) if top or _LOGPROBS in (self.request.include or ()) else None


class CountQuestion(_Lacking, frozen=True, kw_only=True):
    """A request to count tokens."""

    def asked(self, history: Sequence[Raw] = (), items: Sequence[Raw] | None = None) -> CountAsk:
        """The whole, as ``Question.asked``."""
        drawn = Sampling()
        generate = _generate(self, history, items, drawn=drawn, stream=False, top=None, lost=[])
        return CountAsk(generate, _counted)


def read_create(body: bytes) -> Question:
    """A request for a response.

    Raises:
        InvalidRequest: the body breaks the format or a limit, or says two things that exclude each other.
    """
    request, plain = read_known(_create, body)
    _check_input(request)
    if request.background and request.store is False:
        raise InvalidRequest("a background response must be stored: leave out 'store: false'", param="background")
    return Question(request=request, body=body, plain=plain)


def read_count(body: bytes) -> CountQuestion:
    """A request to count a prompt's tokens. Raises as ``read_create``."""
    asks, plain = read_known(_count, body)
    _check_input(asks)
    return CountQuestion(request=asks, body=body, plain=plain)


def _check_input(request: wire.Asks) -> None:
    if request.input is None and request.previous_response_id is None:
        raise missing("input")
    if isinstance(request.input, list) and len(request.input) > ITEMS:
        raise InvalidRequest(f"'input' may have at most {ITEMS} items", param="input")
    if request.input in ("", []) and request.previous_response_id is None:
        raise InvalidRequest("'input' must not be empty", param="input")


def _counted(tokens: int) -> bytes:
    return b'{"object":"response.input_tokens","input_tokens":%d}' % tokens


def _generate(
    asks: _Lacking,
    history: Sequence[Raw],
    items: Sequence[Raw] | None,
    *,
    drawn: Sampling,
    stream: bool,
    top: int | None,
    lost: list[str],
) -> Generate:
    request = asks.request
    given = request.input if items is None or not asks.items else items
    conversation = Conversation()
    if request.instructions:
        conversation.say("system", request.instructions)
    conversation.read(history, "previous_response_id")
    conversation.plain = asks.plain  # what was kept is no part of the body
    if isinstance(given, str):
        conversation.say("user", given)
    elif given:
        conversation.read(given)
    box = read_tools(request.tools, request.tool_choice)
    messages = conversation.messages()
    if not messages:
        raise InvalidRequest("'input' holds nothing that a model can be told", param="input")
    lost += box.lost
    lost += conversation.lost
    if request.truncation not in {None, "disabled"}:
        lost.append("truncation")
    effort = (request.reasoning.effort if request.reasoning else None) or ""
    if effort and effort not in EFFORTS:
        lost.append("reasoning.effort")
    return Generate(
        model=request.model or "",
        messages=messages,
        stream=stream,
        tools=box.tools,
        tool_choice=box.choice,
        parallel_tool_calls=request.parallel_tool_calls,
        output=_output(request.text),
        think=EFFORTS.get(effort),
        sampling=drawn,
        top_logprobs=top,
        origin=Origin("responses", asks.body, VOCABULARY, tuple(dict.fromkeys(lost)), plain=conversation.plain),
    )


def _output(text: wire.Text | None) -> Output | None:
    form = text.format if text else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return Output("json")
    if form.type != "json_schema":
        raise Unsupported(
            f"text.format {form.type[:40]!r} is not supported: text, json_object or json_schema",
            param="text.format.type",
        )
    schema = schema_text(form.schema, "text.format.schema")
    if schema is None:
        raise missing("text.format.schema")
    return Output("schema", schema, form.name or "response", form.strict)
