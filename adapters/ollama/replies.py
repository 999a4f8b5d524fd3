"""An Ollama server's answers -> canonical events, whatever the slices in which the bytes come.

Older servers number all tool calls 0, leave out their ids, and leave out counts that are zero: all that is repaired.
Where lines were asked for, one JSON object may come, and be written over many lines; and lines where one was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from adapters.framing import RECORD_LIMIT, LineReader
from adapters.ollama import wire
from adapters.ollama.fields import read_reply
from adapters.reading import EventReader
from canonical.errors import BackendError
from canonical.events import (
    CALLS,
    Event,
    Finished,
    Reason,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    too_many_calls,
)
from canonical.requests import Embeddings

_NO_TIMINGS = Timings()

_answer = msgspec.json.Decoder(wire.Answer)
_text = msgspec.json.Decoder(str)
_embed = msgspec.json.Decoder(wire.EmbedReply)


class ChatReader(EventReader):
    """The lines of ``/api/chat`` -> events. ``new_id`` gives an id to a tool call that came without."""

    __slots__ = ("_calls", "_finished", "_lines", "_new_id", "_object", "_size", "_started")

    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__()
        self._lines = LineReader()
        self._new_id = new_id
        self._calls: list[str] = []
        self._started = self._finished = False
        self._object: list[bytes] = []
        """The lines of one object that is written over many."""
        self._size = 0

    @property
    def ending(self) -> bool:
        """Never: the finish reason comes with all the rest."""
        return False

    def _feed(self, data: bytes, events: list[Event]) -> None:
        # What follows `done` is passed over.
        for line in self._lines.feed(data):
            if not line or line.isspace() or self._finished:
                continue
            if self._object or (not self._started and line.strip() == b"{"):
                self._collect(line)
                continue
            self._read(read_reply(_answer, line), events)

    def finish(self) -> list[Event]:
        """The last line, if it is whole but for its line break; a half one is dropped."""
        rest = self._lines.feed(b"\n")[0]
        if self._finished:
            return []
        try:
            answer = read_reply(_answer, b"\n".join([*self._object, rest]))
        except BackendError:
            return []
        events: list[Event] = []
        self._read(answer, events)
        return events

    def _collect(self, line: bytes) -> None:
        self._object.append(line)
        self._size += len(line)
        if self._size > RECORD_LIMIT:
            raise BackendError(f"the backend sent an object of more than {RECORD_LIMIT} bytes")

    def whole(self, body: bytes) -> list[Event]:
        """The events of a reply that was not streamed. Raises BackendError as ``feed`` does."""
        events: list[Event] = []
        try:
            answer = read_reply(_answer, body, "reply")
        except BackendError:
            if b"\n" not in body.strip():
                raise
            events = self.feed(body)
            if self.failure is not None:
                raise self.failure from None
            return events + self.finish()
        self._read(answer, events)
        return events

    def _read(self, answer: wire.Answer, events: list[Event]) -> None:
        if answer.error is not None:
            raise BackendError(error_text(answer.error))
        if not self._started:
            self._started = True
            events.append(Started(answer.model or ""))
        part = self._part(answer)
        if part is None:
            if not answer.done:
                raise BackendError("the backend sent a line without an answer")
        else:
            if part.thinking:
                events.append(ReasoningDelta(part.thinking))
            if answer.logprobs:
                events.append(TextDelta(part.content or "", tuple(map(_logprob, answer.logprobs))))
            elif part.content:
                events.append(TextDelta(part.content))
            if part.tool_calls:
                events.extend(map(self._call, part.tool_calls))
        if answer.done:
            self._finished = True
            events.append(_end(answer, called=bool(self._calls)))

    def _part(self, answer: wire.Answer) -> wire.AnswerMessage | None:
        return answer.message

    def _call(self, call: wire.ToolCall) -> ToolCallDelta:
        function = call.function
        if function is None or not function.name:
            raise BackendError("the backend sent a tool call without a function name")
        if len(self._calls) >= CALLS:
            raise too_many_calls()  # within one line, too: each is compared with all before it
        arguments = bytes(function.arguments)
        if arguments.startswith(b'"'):
            # Servers that only resemble Ollama send OpenAI's form, JSON within a string.
            text = read_reply(_text, arguments, "tool call")
        else:
            text = arguments.decode(errors="replace")
        id = call.id if call.id and call.id not in self._calls else self._new_id()
        self._calls.append(id)
        return ToolCallDelta(len(self._calls) - 1, id, function.name, "{}" if text in ("", "null") else text)


class GenerateReader(ChatReader):
    """The lines of ``/api/generate`` -> events: the same, with the pieces directly in the record."""

    __slots__ = ()

    def _part(self, answer: wire.Answer) -> wire.AnswerMessage | None:
        if answer.response is None and not answer.thinking and not answer.tool_calls:
            return None
        return wire.AnswerMessage(content=answer.response, thinking=answer.thinking, tool_calls=answer.tool_calls)


def read_chat(body: bytes, new_id: Callable[[], str]) -> list[Event]:
    """A whole reply of ``/api/chat``. Raises BackendError."""
    return ChatReader(new_id).whole(body)


def read_generate(body: bytes, new_id: Callable[[], str]) -> list[Event]:
    """A whole reply of ``/api/generate``. Raises BackendError."""
    return GenerateReader(new_id).whole(body)


def read_embed(body: bytes) -> Embeddings:
    """The reply of ``/api/embed``. Raises BackendError."""
    reply = read_reply(_embed, body, "list of embeddings")
    count = reply.prompt_eval_count
    return Embeddings(
        model=reply.model or "",
        vectors=reply.embeddings,
        prompt_tokens=None if count is None else int(count),
        total=int(reply.total_duration or 0),
        load=int(reply.load_duration or 0),
    )


def error_text(error: Any) -> str:
    """The words of an ``error`` field: Ollama's text, or the ``message`` of an object as other servers send it."""
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) and error else "the backend reported an error without a reason"


def _end(answer: wire.Answer, *, called: bool) -> Finished:
    """Older servers name no reason; a load instead of an answer is an empty answer; calls are no reason to Ollama."""
    reason: Reason = "length" if answer.done_reason == "length" else "tool_calls" if called else "stop"
    prompt, completion = answer.prompt_eval_count, answer.eval_count
    usage = None if prompt is None and completion is None else Usage(int(prompt or 0), int(completion or 0))
    timings = Timings(
        total=_integer(answer.total_duration),
        load=_integer(answer.load_duration),
        prompt=_integer(answer.prompt_eval_duration),
        eval=_integer(answer.eval_duration),
    )
    return Finished(reason, usage, None if timings == _NO_TIMINGS else timings)


def _integer(number: wire.Number) -> int | None:
    return None if number is None else int(number)


def _logprob(token: wire.Logprob) -> TokenLogprob:
    top = tuple(TokenLogprob(other.token, other.logprob, other.bytes) for other in token.top_logprobs or ())
    return TokenLogprob(token.token, token.logprob, token.bytes, top)
