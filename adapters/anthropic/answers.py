"""A server's answer -> canonical events, streamed or whole, repaired where servers are known to stray.

The finish reason comes in ``message_delta``, with the last count of tokens; ``message_stop`` tells nothing more. A call's
arguments may stand whole at its block's start instead of in pieces, and an ``event:`` line may be missing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from adapters.anthropic import wire
from adapters.anthropic.errors import in_band_error
from adapters.anthropic.turns import REDACTED, UNSIGNED
from adapters.framing import SseReader
from adapters.reading import EventReader
from canonical.errors import BackendError
from canonical.events import Event, Finished, Reason, ReasoningDelta, Started, TextDelta, ToolCallDelta, Usage

_REASONS: dict[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_record = msgspec.json.Decoder(wire.SeenRecord, strict=False)
_message = msgspec.json.Decoder(wire.SeenMessage, strict=False)
_encode = msgspec.json.Encoder().encode


class MessageReader(EventReader):
    """Frames of a Messages stream -> canonical events. ``new_id`` makes the id of a tool call that has none."""

    __slots__ = (
        "_calls",
        "_done",
        "_given",
        "_new_id",
        "_place",
        "_reason",
        "_signature",
        "_sse",
        "_started",
        "_stop",
        "_usage",
    )

    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__()
        self._new_id = new_id
        self._sse = SseReader()
        self._started = self._done = False
        self._reason: Reason | None = None
        self._stop: str | None = None
        self._usage = wire.SeenUsage()
        self._calls = 0
        self._place: dict[int, int] = {}
        """A block's index -> the call's place among calls."""
        self._given: dict[int, str] = {}
        """A call's place -> arguments that stood at its start; taken where no piece follows."""
        self._signature = ""

    @property
    def ending(self) -> bool:
        """Whether the finish reason has come."""
        return self._reason is not None

    def _feed(self, data: bytes, events: list[Event]) -> None:
        for name, record in self._sse.feed(data):
            if record == b"[DONE]":
                events.extend(self.finish())
            elif not self._done:
                self._read(name, record, events)

    def finish(self) -> list[Event]:
        """The end, if a finish reason has come; call it when the server has closed the stream."""
        if self._reason is None or self._done:
            return []
        self._done = True
        if self._calls and self._reason == "stop":
            self._reason = "tool_calls"
        events: list[Event] = []
        self._seal(events)
        events.extend(ToolCallDelta(place, arguments=given) for place, given in self._given.items())
        return [*events, Finished(self._reason, _usage(self._usage), stop_sequence=self._stop)]

    def read_message(self, message: wire.SeenMessage) -> list[Event]:
        """A whole answer."""
        events: list[Event] = []
        self._start(message, events)
        for index, block in enumerate(message.content or ()):
            self._begin(index, block, events)
            self._seal(events)
        self._end(message.stop_reason, message.stop_sequence)
        return events + self.finish()

    def _read(self, name: bytes, data: bytes, events: list[Event]) -> None:
        try:
            record = _record.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BackendError(f"the backend sent a record that is not in Anthropic's format: {error}") from error
        if record.error or name == b"error" or record.type == "error":
            raise in_band_error(record.error)
        if record.usage is not None:
            self._count(record.usage)
        match record.type:
            case "content_block_delta" if record.delta is not None:
                self._piece(record.index, record.delta, events)
            case "content_block_start" if record.content_block is not None:
                self._begin(record.index, record.content_block, events)
            case "content_block_stop":
                self._seal(events)
            case "message_start" if record.message is not None:
                self._start(record.message, events)
            case "message_delta" if record.delta is not None:
                self._end(record.delta.stop_reason, record.delta.stop_sequence)
            case "message_stop":
                events.extend(self.finish())
            case _:
                pass

    def _start(self, message: wire.SeenMessage, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            events.append(Started(message.model or ""))
        if message.usage is not None:
            self._count(message.usage)

    def _begin(self, index: int, block: wire.SeenBlock, events: list[Event]) -> None:
        self._need_start(events)
        match block.type:
            case "text":
                if block.text:
                    events.append(TextDelta(block.text))
            case "thinking":
                if block.thinking:
                    events.append(ReasoningDelta(block.thinking))
                self._signature = block.signature or ""
            case "redacted_thinking":
                events.append(ReasoningDelta("", REDACTED + (block.data or "")))
            case "tool_use":
                if not block.name:
                    raise BackendError("the backend sent a tool call without a name")
                place = self._place[index] = self._calls
                self._calls += 1
                self._given[place] = _encode(block.input).decode() if isinstance(block.input, dict) else "{}"
                events.append(ToolCallDelta(place, block.id or self._new_id(), block.name))
            case _:
                pass

    def _piece(self, index: int, delta: wire.SeenDelta, events: list[Event]) -> None:
        self._need_start(events)
        match delta.type:
            case "text_delta":
                if delta.text:
                    events.append(TextDelta(delta.text))
            case "thinking_delta":
                if delta.thinking:
                    events.append(ReasoningDelta(delta.thinking))
            case "signature_delta":
                self._signature += delta.signature or ""
            case "input_json_delta":
                place = self._place.get(index)
                if place is not None and delta.partial_json:
                    self._given.pop(place, None)
                    events.append(ToolCallDelta(place, arguments=delta.partial_json))
            case _:
                pass

    def _need_start(self, events: list[Event]) -> None:
        if not self._started:
            self._start(wire.SeenMessage(), events)

    def _seal(self, events: list[Event]) -> None:
        """The signature, which is the last of its block."""
        if self._signature == UNSIGNED:
            self._signature = ""
        if self._signature:
            events.append(ReasoningDelta("", self._signature))
            self._signature = ""

    def _end(self, reason: str | None, stop: str | None) -> None:
        if reason:
            self._reason = _REASONS.get(reason, "stop")
            self._stop = stop

    def _count(self, usage: wire.SeenUsage) -> None:
        """Later counts stand for the whole answer and replace earlier ones."""
        for name in usage.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._usage, name, value)


def read_message(body: bytes, new_id: Callable[[], str]) -> list[Event]:
    """The events of a whole answer. Raises as the reader of its stream does."""
    try:
        message = _message.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackendError(f"the backend sent an answer that is not in Anthropic's format: {error}") from error
    if message.error:
        raise in_band_error(message.error)
    return MessageReader(new_id).read_message(message)


def _usage(usage: wire.SeenUsage) -> Usage | None:
    if usage.input_tokens is None and usage.output_tokens is None:
        return None
    cached = usage.cache_read_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        prompt=(usage.input_tokens or 0) + (usage.cache_creation_input_tokens or 0) + cached,
        completion=usage.output_tokens or 0,
        cached=cached,
        reasoning=0 if details is None else details.thinking_tokens or 0,
    )
