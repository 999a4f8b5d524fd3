r"""The answer of ``/v1/responses``: every step of every item as a numbered event, and the object that they add up to.

    event: response.output_text.delta
    data: {"type":"response.output_text.delta","item_id":"msg_…","output_index":0,"content_index":0,
           "sequence_number":4,"delta":"Hel","logprobs":[]}      (one line)

Texts and thoughts come one after another: an item opens at a change of kind and closes before the next. Calls stay open
to the end, for their pieces may alternate. The SDK's accumulator holds us to the order; Codex reads final items only from
``output_item.done``, and takes no stream for whole without ``response.completed``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from adapters.dialect import Stamp
from adapters.framing import encode_line, escape_lines
from adapters.responses import wire
from adapters.responses.reply import Frame, logprobs, usage
from adapters.responses.seal import seal, text_input
from canonical.errors import BackendError, GatewayError
from canonical.events import Event, Finished, Reason, ReasoningDelta, Started, TextDelta, TokenLogprob, ToolCallDelta
from canonical.messages import Reasoning

CUT_OFF: dict[Reason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""How an answer ends that is not whole, and what the dialect calls it."""

LIMIT = 64 * 1024 * 1024
"""Characters of one answer, which is told whole at the end."""

_encode = msgspec.json.Encoder().encode


class _Open:
    """An item that has begun: where it stands, and its text so far."""

    __slots__ = ("delta", "id", "index", "item", "pieces", "tokens")

    def __init__(self, item: wire.OutputItem, index: int, delta: bytes) -> None:
        self.item = item
        self.id = item.id
        self.index = index
        self.pieces: list[str] = []
        self.tokens: list[TokenLogprob] = []
        self.delta = delta
        """Begins a frame with a piece: number, piece and ending follow."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class ResponseStream:
    """Canonical events -> frames, and the object. ``store`` may be changed until the end is told."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    """None: Codex counts events, and an event has a number."""

    __slots__ = (
        "_calls",
        "_completed",
        "_created",
        "_custom",
        "_error",
        "_frame",
        "_items",
        "_model",
        "_number",
        "_open",
        "_queued",
        "_reason",
        "_seal",
        "_size",
        "_stamp",
        "_status",
        "_summary",
        "_top",
        "_usage",
        "id",
        "store",
    )

    def __init__(
        self,
        stamp: Stamp,
        *,
        frame: Frame,
        store: bool,
        custom: frozenset[str] = frozenset(),
        top: int | None = None,
        summary: bool = False,
        sealed: bool = False,
    ) -> None:
        self.id = f"resp_{stamp.id}"
        self.store = store
        self._stamp = stamp
        self._created = stamp.clock() // 1_000_000_000
        self._frame = frame
        self._custom = custom
        self._top = top
        self._summary = summary
        self._seal = sealed
        self._status: wire.Status = "in_progress"
        self._completed: int | None = None
        self._error: wire.Failure | None = None
        self._reason: Reason = "stop"
        self._usage: wire.Usage | None = None
        self._model = ""
        self._number = -1
        self._size = 0
        self._queued = False
        self._items: list[wire.OutputItem] = []
        self._open: _Open | None = None
        self._calls: list[_Open] = []

    @property
    def status(self) -> wire.Status:
        """How far it is."""
        return self._status

    @property
    def tokens(self) -> int:
        """How many the model has written, as far as somebody counted."""
        return self._usage.output_tokens if self._usage is not None else 0

    def queue(self) -> bytes:
        """The first frames of an answer that nobody waits for."""
        self._queued = True
        self._status = "queued"
        return self._tell("response.created") + self._tell("response.queued")

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002 - a response has one choice
        """The frames of one event.

        Raises:
            BackendError: the answer has more than ``LIMIT`` characters.
        """
        match event:
            case TextDelta():
                return self._text(event)
            case ToolCallDelta():
                return self._call(event)
            case ReasoningDelta():
                return self._think(event)
            case Started(model):
                return self._begin(model)
            case Finished(reason, counted):
                self._reason = reason
                self._usage = usage(counted)
                return self._end_items(reason)

    def finish(self) -> bytes:
        """The last frame, with the whole object."""
        self.settle()
        return self._tell("response.incomplete" if self._status == "incomplete" else "response.completed")

    def settle(self) -> None:
        """Every item is told: note how and when it ended."""
        self._status = "incomplete" if self._reason in CUT_OFF else "completed"
        if self._completed is None:
            self._completed = self._stamp.clock() // 1_000_000_000

    def fail(self, error: GatewayError) -> bytes:
        """An ``error`` for clients that look for one, and the last frame: Codex looks for nothing else."""
        frames = b"" if self._number >= 0 else self._begin("")
        code = error.code or "server_error"
        self._error = wire.Failure(code, error.message)
        told = self._frame_of("error", {"code": code, "message": error.message, "param": error.param})
        return frames + told + self._break_off("failed", "response.failed")

    def cancel(self) -> bytes:
        """The last frame of an answer that was called off. The dialect has no event of this name."""
        return self._break_off("cancelled", "response.incomplete")

    def body(self, *, status: wire.Status | None = None) -> bytes:
        """The object as it is now, or as ``status`` would have it. While it is made its output is empty, as the vendor's."""
        status = status or self._status
        told = self._frame.response(
            id=self.id,
            created=self._created,
            status=status,
            model=self._model,
            output=() if status in {"queued", "in_progress"} else self._items,
            store=self.store,
        )
        told.error = self._error
        told.completed_at = self._completed if status == "completed" else None
        told.usage = self._usage
        if status == "incomplete":
            told.incomplete_details = wire.Incomplete(CUT_OFF[self._reason])
        return escape_lines(_encode(told))

    # Items

    def _begin(self, model: str) -> bytes:
        self._model = model
        self._status = "in_progress"
        created = b"" if self._queued else self._tell("response.created")
        return created + self._tell("response.in_progress")

    def _text(self, event: TextDelta) -> bytes:
        opened = self._open
        frames = b""
        if opened is None or type(opened.item) is not wire.MessageItem:
            if not event.text and not event.logprobs:
                return b""
            frames = self._close() + self._open_text()
            opened = self._open
            assert opened is not None
        opened.pieces.append(event.text)
        self._grow(event.text)
        self._number += 1
        told = b"[]"
        if self._top is not None and event.logprobs:
            opened.tokens.extend(event.logprobs)
            told = encode_line(logprobs(event.logprobs, self._top, whole=False))
        frame = b'%b%d,"delta":%b,"logprobs":%b}\n\n' % (opened.delta, self._number, encode_line(event.text), told)
        return frames + frame if frames else frame

    def _open_text(self) -> bytes:
        item = wire.MessageItem(id=self._id("msg"), status="in_progress", content=[])
        frames = self._add(item, "response.output_text.delta", b',"content_index":0')
        return frames + self._part("response.content_part.added", "content_index", wire.OutputText(""))

    def _think(self, event: ReasoningDelta) -> bytes:
        if not event.text and not event.signature:
            return b""
        opened = self._open
        frames = b""
        if opened is None or type(opened.item) is not wire.ReasoningItem:
            frames = self._close() + self._open_thoughts(told=bool(event.text))
            opened = self._open
            assert opened is not None
        if event.text:
            frames += self._piece(opened, event.text)
        if event.signature:
            frames += self._close(signature=event.signature)
        return frames

    def _open_thoughts(self, *, told: bool) -> bytes:
        item = wire.ReasoningItem(id=self._id("rs"), status="in_progress", summary=[], content=[])
        place = "summary_index" if self._summary else "content_index"
        event = "response.reasoning_summary_text.delta" if self._summary else "response.reasoning_text.delta"
        frames = self._add(item, event, b',"%b":0' % place.encode())
        if not told:  # a vendor shows only the proof
            return frames
        if self._summary:
            return frames + self._part("response.reasoning_summary_part.added", place, wire.SummaryText(""))
        return frames + self._part("response.content_part.added", place, wire.ReasoningText(""))

    def _call(self, event: ToolCallDelta) -> bytes:
        frames = b""
        if event.index == len(self._calls):
            frames = self._close() + self._open_call(event)
        opened = self._calls[event.index]
        if not event.arguments:
            return frames
        if type(opened.item) is wire.CustomItem:  # its text is inside JSON, and whole at the end
            opened.pieces.append(event.arguments)
            self._grow(event.arguments)
            return frames
        return frames + self._piece(opened, event.arguments)

    def _open_call(self, event: ToolCallDelta) -> bytes:
        item: wire.OutputItem
        if event.name in self._custom:
            item = wire.CustomItem(
                id=self._id("ctc"), status="in_progress", call_id=event.id, name=event.name, input=""
            )
            frames = self._add(item, "response.custom_tool_call_input.delta", b"")
        else:
            item = wire.CallItem(
                id=self._id("fc"), status="in_progress", call_id=event.id, name=event.name, arguments=""
            )
            frames = self._add(item, "response.function_call_arguments.delta", b"")
        assert self._open is not None
        self._calls.append(self._open)
        self._open = None
        return frames

    def _add(self, item: wire.OutputItem, delta: str, part: bytes) -> bytes:
        """Open ``item`` at the end of the output; ``delta`` is the event of its pieces."""
        index = len(self._items)
        self._items.append(item)
        name = delta.encode()
        head = (name, name, item.id.encode(), index, part)
        prefix = b'event: %b\ndata: {"type":"%b","item_id":"%b","output_index":%d%b,"sequence_number":' % head
        self._open = _Open(item, index, prefix)
        return self._frame_of("response.output_item.added", {"output_index": index, "item": item})

    def _piece(self, opened: _Open, text: str) -> bytes:
        opened.pieces.append(text)
        self._grow(text)
        self._number += 1
        return b'%b%d,"delta":%b}\n\n' % (opened.delta, self._number, encode_line(text))

    def _grow(self, text: str) -> None:
        self._size += len(text)
        if self._size > LIMIT:
            raise BackendError(f"the answer has more than {LIMIT} characters")

    def _part(self, event: str, place: str, part: Any) -> bytes:
        opened = self._open
        assert opened is not None
        where = {"item_id": opened.id, "output_index": opened.index, place: 0}
        return self._frame_of(event, {**where, "part": part})

    def _close(self, *, status: str = "completed", signature: str = "") -> bytes:
        """End the text or the thoughts that are open."""
        opened = self._open
        if opened is None:
            return b""
        item = opened.item
        item.status = status
        text = opened.text
        where = {"item_id": opened.id, "output_index": opened.index}
        if isinstance(item, wire.MessageItem):
            frames = self._end_text(opened, item, text)
        else:
            assert isinstance(item, wire.ReasoningItem)
            frames = b""
            if text and self._summary:
                summary = wire.SummaryText(text)
                item.summary = [summary]
                where = {**where, "summary_index": 0}
                frames = self._frame_of("response.reasoning_summary_text.done", {**where, "text": text})
                frames += self._frame_of("response.reasoning_summary_part.done", {**where, "part": summary})
            elif text:
                thought = wire.ReasoningText(text)
                item.content = [thought]
                where = {**where, "content_index": 0}
                frames = self._frame_of("response.reasoning_text.done", {**where, "text": text})
                frames += self._frame_of("response.content_part.done", {**where, "part": thought})
            if signature or self._seal:
                item.encrypted_content = seal(Reasoning(text, signature or None))
        self._open = None
        return frames + self._done(opened)

    def _end_text(self, opened: _Open, item: wire.MessageItem, text: str) -> bytes:
        told = logprobs(opened.tokens, self._top or 0, whole=True)
        part = wire.OutputText(text, logprobs=told)
        item.content = [part]
        done = {
            "item_id": opened.id,
            "output_index": opened.index,
            "content_index": 0,
            "text": text,
            "logprobs": logprobs(opened.tokens, self._top or 0, whole=False),
        }
        return self._frame_of("response.output_text.done", done) + self._part(
            "response.content_part.done", "content_index", part
        )

    def _end_call(self, opened: _Open, status: str) -> bytes:
        item = opened.item
        item.status = status
        where = {"item_id": opened.id, "output_index": opened.index}
        if isinstance(item, wire.CustomItem):
            item.input = text_input(opened.text)
            frames = self._piece(opened, item.input) if item.input else b""
            frames += self._frame_of("response.custom_tool_call_input.done", {**where, "input": item.input})
        else:
            assert isinstance(item, wire.CallItem)
            item.arguments = opened.text
            done = {**where, "name": item.name, "arguments": item.arguments}
            frames = self._frame_of("response.function_call_arguments.done", done)
        return frames + self._done(opened)

    def _done(self, opened: _Open) -> bytes:
        return self._frame_of("response.output_item.done", {"output_index": opened.index, "item": opened.item})

    def _end_items(self, reason: Reason) -> bytes:
        """Close whatever is open, in the order of the output. An answer of nothing is an empty text."""
        frames = b""
        if not self._items:
            frames = self._open_text()
        last = len(self._items) - 1
        opened = [*self._calls, *([self._open] if self._open is not None else [])]
        for one in sorted(opened, key=lambda one: one.index):
            status = "incomplete" if reason in CUT_OFF and one.index == last else "completed"
            frames += self._close(status=status) if one is self._open else self._end_call(one, status)
        self._calls = []
        return frames

    def _break_off(self, status: wire.Status, event: str) -> bytes:
        """End before the end: items keep what they have."""
        self._status = status
        opened = [*self._calls, *([self._open] if self._open is not None else [])]
        self._calls, self._open = [], None
        for one in opened:
            item = one.item
            item.status = "incomplete"
            match item:
                case wire.MessageItem():
                    item.content = [wire.OutputText(one.text)]
                case wire.ReasoningItem() if self._summary:
                    item.summary = [wire.SummaryText(one.text)]
                case wire.ReasoningItem():
                    item.content = [wire.ReasoningText(one.text)]
                case wire.CallItem():
                    item.arguments = one.text
                case wire.CustomItem():
                    item.input = text_input(one.text)
        return self._tell(event)

    # Frames

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._stamp.id}_{len(self._items)}"

    def _tell(self, event: str) -> bytes:
        self._number += 1
        name = event.encode()
        head = (name, name, self._number, self.body())
        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,"response":%b}\n\n' % head

    def _frame_of(self, event: str, fields: dict[str, Any]) -> bytes:
        self._number += 1
        told = encode_line({"type": event, "sequence_number": self._number, **fields})
        return b"event: %b\ndata: %b\n\n" % (event.encode(), told)


def error_frame(error: GatewayError, number: int) -> bytes:
    """The last frame of a stream of which no more can be told."""
    fields = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: %b\n\n" % encode_line({**fields, "sequence_number": number})
