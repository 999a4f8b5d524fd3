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
from adapters.openai.fields import EFFORTS, read_known, sampling, schema_text
from adapters.reading import Reading
from adapters.responses import wire
from adapters.responses.items import Conversation, item_ids, kept_items, owner_of, referred, resolved
from adapters.responses.reply import frame
from adapters.responses.stream import ResponseStream
from adapters.responses.tools import read_tools
from adapters.responses.vocabulary import VOCABULARY
from canonical.errors import InvalidRequest, Unsupported
from canonical.requests import Generate, Origin, Output, Sampling

__all__ = [
    "PAGE",
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

PAGE = 20
"""Items of a page, where the client does not say."""
PAGE_LIMIT = 100

_SEALED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_INCLUDED = frozenset({_SEALED, _LOGPROBS})

_create = Reading(wire.Request, strict=False)  # "5" and 5.0 are seen for an int
_count = Reading(wire.Asks, strict=False)
_echo = msgspec.json.Decoder(wire.Echo)
_object = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode


class Question(Struct, frozen=True):
    """A request as it came: it lacks what was said before."""

    request: wire.Request
    body: bytes
    plain: bool

    @property
    def stream(self) -> bool:
        """Whether the answer is to come piece by piece."""
        return bool(self.request.stream)

    @property
    def background(self) -> bool:
        """Whether the answer is to be made while nobody waits."""
        return bool(self.request.background)

    @property
    def previous(self) -> str | None:
        """The response that this one goes on from."""
        return self.request.previous_response_id

    @property
    def items(self) -> list[Raw]:
        """The input, where it is a list."""
        given = self.request.input
        return given if isinstance(given, list) else []

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
            request,
            self.body,
            self.plain,
            history,
            request.input if items is None or not self.items else list(items),
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


def read_create(body: bytes) -> Question:
    """A request for a response.

    Raises:
        InvalidRequest: the body breaks the format or a limit, or says two things that exclude each other.
    """
    request, plain = read_known(_create, body)
    _check_input(request)
    if request.background and request.store is False:
        raise InvalidRequest("a background response must be stored: leave out 'store: false'", param="background")
    return Question(request, body, plain)


def read_count(body: bytes) -> tuple[wire.Asks, CountOf]:
    """A request to count a prompt's tokens, and how to put it together behind what was said before. Raises likewise."""
    asks, plain = read_known(_count, body)
    _check_input(asks)
    return asks, CountOf(asks, body, plain)


class CountOf(Struct, frozen=True):
    """A request to count that lacks what was said before."""

    request: wire.Asks
    body: bytes
    plain: bool

    def ask(self, history: Sequence[Raw], items: Sequence[Raw]) -> CountAsk:
        """The whole. Raises as ``Question.asked``."""
        request = self.request
        given = list(items) if isinstance(request.input, list) else request.input
        generate = _generate(
            request, self.body, self.plain, history, given, drawn=Sampling(), stream=False, top=None, lost=[]
        )
        return CountAsk(generate, _counted)


def response_items(input: bytes, response: bytes) -> list[Raw]:
    """Everything said in one turn: what the client put in, and what came out."""
    output = _object.decode(response).get("output", Raw(b"[]"))
    return [*_items.decode(input), *_items.decode(output)]


def input_items(input: bytes) -> list[Raw]:
    """What the client put in."""
    return _items.decode(input)


def in_background(response: bytes) -> bool:
    """Whether a response object is of an answer that nobody waits for."""
    return bytes(_object.decode(response).get("background", Raw(b"false"))) == b"true"


def with_status(response: bytes, status: wire.Status, *, code: str = "", message: str = "") -> bytes:
    """A response object in another state, and why."""
    fields = _object.decode(response)
    fields["status"] = Raw(_encode(status))
    if message:
        fields["error"] = Raw(_encode(wire.Failure(code, message)))
    return _encode(fields)


def deleted_reply(id: str) -> bytes:
    """The answer of ``DELETE``."""
    return _encode({"id": id, "object": "response", "deleted": True})


def page_reply(items: Sequence[Raw], *, limit: str, order: str, after: str) -> bytes:
    """A page of ``items``, the newest first unless ``order`` says otherwise.

    Raises:
        InvalidRequest: a limit or order that cannot be, or an unknown item to go on after.
    """
    count = int(limit) if limit.isdecimal() and len(limit) < 4 else 0
    if limit and not 1 <= count <= PAGE_LIMIT:
        raise InvalidRequest(f"'limit' must be between 1 and {PAGE_LIMIT}", param="limit")
    if order not in {"", "asc", "desc"}:
        raise InvalidRequest("'order' must be asc or desc", param="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = item_ids(ordered)
    if after and after not in ids:
        raise InvalidRequest(f"no item {after[:80]!r} to go on after", param="after")
    start = ids.index(after) + 1 if after else 0
    end = start + (count or PAGE)
    shown = ids[start:end]
    return _encode(
        wire.Page(
            data=ordered[start:end],
            first_id=shown[0] if shown else None,
            last_id=shown[-1] if shown else None,
            has_more=len(ids) > end,
        )
    )


def _check_input(request: wire.Asks) -> None:
    if request.input is None and request.previous_response_id is None:
        raise InvalidRequest("missing required parameter: 'input'", param="input", code="missing_required_parameter")
    if request.input in ("", []) and request.previous_response_id is None:
        raise InvalidRequest("'input' must not be empty", param="input")


def _counted(tokens: int) -> bytes:
    return b'{"object":"response.input_tokens","input_tokens":%d}' % tokens


def _generate(
    request: wire.Asks,
    body: bytes,
    plain: bool,
    history: Sequence[Raw],
    given: str | list[Raw] | None,
    *,
    drawn: Sampling,
    stream: bool,
    top: int | None,
    lost: list[str],
) -> Generate:
    conversation = Conversation()
    if request.instructions:
        conversation.say("system", request.instructions)
    conversation.read(history, "previous_response_id")
    conversation.plain = plain  # what was kept is no part of the body
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
        origin=Origin("responses", body, VOCABULARY, tuple(dict.fromkeys(lost)), plain=conversation.plain),
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
        raise InvalidRequest(
            "missing required parameter: 'text.format.schema'",
            param="text.format.schema",
            code="missing_required_parameter",
        )
    return Output("schema", schema, form.name or "response", form.strict)
