"""A backend's answer -> canonical events, streamed or whole, repaired where servers are known to stray.

A finish reason is held back until the usage record has come, which is the last one before ``[DONE]`` or the end. Records
may come without SSE around them, from an engine in this process that speaks the same JSON.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import msgspec

from adapters.framing import SseReader
from adapters.openai import seen
from adapters.openai.errors import in_band_error
from adapters.openai.messages import arguments_text, piece_text
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

_REASONS: dict[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_FAILURES = frozenset({"error", "abort"})

_answer = msgspec.json.Decoder(seen.Answer, strict=False)


class _Reader(EventReader):
    """What the streams of both kinds share: framing, failure, usage, the held-back end."""

    __slots__ = ("_done", "_reason", "_sse", "_started", "_timings", "_usage")

    def __init__(self) -> None:
        super().__init__()
        self._sse = SseReader()
        self._started = self._done = False
        self._reason: Reason | None = None
        self._usage: seen.Usage | None = None
        self._timings: seen.Timings | None = None

    @property
    def ending(self) -> bool:
        """Whether the finish reason has come, and at most the usage may follow."""
        return self._reason is not None

    def _feed(self, data: bytes, events: list[Event]) -> None:
        for name, record in self._sse.feed(data):
            if record == b"[DONE]":
                events.extend(self.finish())
            elif name == b"error":
                raise _named_error(record)
            elif not self._done:
                self._read(record, events)

    def feed_record(self, json: bytes) -> list[Event]:
        """The events of one record without SSE around it. Raises as ``feed``."""
        events: list[Event] = []
        self._read(json, events)
        return events

    def finish(self) -> list[Event]:
        """The end, if a finish reason has come; call it when the backend has closed the stream."""
        if self._reason is None or self._done:
            return []
        self._done = True
        return [Finished(self._reason, _usage(self._usage, self._timings), _timings(self._timings))]

    def _read(self, record: bytes, events: list[Event]) -> None:
        try:
            answer = _answer.decode(record)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BackendError(f"the backend sent a record that is not in OpenAI's format: {error}") from error
        if answer.error:
            raise in_band_error(answer.error)
        if not self._started:
            self._started = True
            events.append(Started(answer.model or ""))
        if answer.choices:
            choice = answer.choices[0]
            self._read_choice(choice, events)
            if choice.finish_reason:
                self._reason = _reason(choice.finish_reason)
        if answer.usage is not None:
            self._usage = answer.usage
        if answer.timings is not None:
            self._timings = answer.timings

    @abstractmethod
    def _read_choice(self, choice: seen.Choice, events: list[Event]) -> None: ...


class CompletionReader(_Reader):
    """``text_completion`` frames -> canonical events."""

    __slots__ = ()

    def _read_choice(self, choice: seen.Choice, events: list[Event]) -> None:
        logprobs = () if choice.logprobs is None else _logprobs(choice.logprobs)
        if choice.text or logprobs:
            events.append(TextDelta(choice.text or "", logprobs))


class _Call:
    """A tool call that has begun."""

    __slots__ = ("empty", "id", "index", "name", "place")

    def __init__(self, index: int | None, id: str, name: str, place: int) -> None:
        self.index, self.id, self.name, self.place = index, id, name, place
        self.empty = True


class ChatReader(_Reader):
    """``chat.completion.chunk`` frames -> canonical events. ``new_id`` makes the id of a tool call that has none."""

    __slots__ = ("_calls", "_new_id")

    def __init__(self, new_id: Callable[[], str]) -> None:
        super().__init__()
        self._new_id = new_id
        self._calls: list[_Call] = []

    def finish(self) -> list[Event]:
        """The end, if a finish reason has come; call it when the backend has closed the stream."""
        if self._calls and self._reason == "stop":
            # Some servers say that the model stopped, and mean: to call.
            self._reason = "tool_calls"
        end = super().finish()
        if not end:
            return end
        # No text at all is not JSON, and clients parse what they get.
        return [*(ToolCallDelta(call.place, arguments="{}") for call in self._calls if call.empty), *end]

    def _read_choice(self, choice: seen.Choice, events: list[Event]) -> None:
        delta = choice.delta or choice.message
        if delta is None:
            return
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            events.append(ReasoningDelta(thought))
        if choice.logprobs is not None:
            logprobs = _logprobs(choice.logprobs)
            if delta.content or logprobs:
                events.append(TextDelta(delta.content or "", logprobs))
        elif delta.content:
            events.append(TextDelta(delta.content))
        if delta.refusal:
            events.append(TextDelta(delta.refusal))
        if delta.tool_calls:
            whole = choice.delta is None
            events.extend(self._piece(call, whole=whole) for call in delta.tool_calls)

    def _piece(self, piece: seen.Call, *, whole: bool) -> ToolCallDelta:
        function = piece.function or seen.Function()
        arguments = arguments_text(function.arguments) if whole else piece_text(function.arguments)
        id, name = piece.id or "", function.name or ""
        call = None if whole else self._find(piece.index, id, name)
        if call is not None:
            call.empty = call.empty and not arguments
            return ToolCallDelta(call.place, arguments=arguments)
        if not name:
            raise BackendError("the backend sent a tool call without a name")
        if len(self._calls) >= CALLS:
            raise too_many_calls()  # within one frame, too: each is compared with all before it
        if not id or any(other.id == id for other in self._calls):
            id = self._new_id()
        call = _Call(piece.index, piece.id or "", name, len(self._calls))
        call.empty = not arguments
        self._calls.append(call)
        return ToolCallDelta(call.place, id, name, arguments)

    def _find(self, index: int | None, id: str, name: str) -> _Call | None:
        """The call that a piece goes on with; None where it begins one.

        Servers repeat id and name, leave out the index, or give every call index 0: a *different* id or name tells a
        new call then, and an id without a name never does, for some servers make up a new one for every piece.
        """
        candidates = [call for call in reversed(self._calls) if index is None or call.index in {index, None}]
        if id:
            for call in candidates:
                if call.id == id:
                    return call
        if not candidates or (name and (index is None or id or name != candidates[0].name)):
            return None
        return candidates[0]


def read_chat(body: bytes, new_id: Callable[[], str]) -> list[Event]:
    """The events of a whole ``chat.completion``. Raises as the reader of its stream does."""
    reader = ChatReader(new_id)
    return reader.feed_record(body) + reader.finish()


def read_completion(body: bytes) -> list[Event]:
    """The events of a whole ``text_completion``. Raises as the reader of its stream does."""
    reader = CompletionReader()
    return reader.feed_record(body) + reader.finish()


def _named_error(record: bytes) -> Exception:
    """The failure in an ``event: error``, with or without an ``error`` object around it."""
    try:
        told = msgspec.json.decode(record)
    except msgspec.MsgspecError:
        told = record.decode(errors="replace")
    return in_band_error(told.get("error") or told if isinstance(told, dict) else told)


def _reason(word: str) -> Reason:
    if word in _FAILURES:
        raise BackendError(f"the backend ended the answer with the reason {word!r}")
    return _REASONS.get(word, "stop")


def _usage(usage: seen.Usage | None, timings: seen.Timings | None) -> Usage | None:
    cached = (timings.cache_n or 0) if timings is not None else 0
    if usage is not None and usage.prompt_tokens is not None:
        told = usage.prompt_tokens_details
        thought = usage.completion_tokens_details
        return Usage(
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens or 0,
            cached=cached if told is None or told.cached_tokens is None else told.cached_tokens,
            reasoning=0 if thought is None or thought.reasoning_tokens is None else thought.reasoning_tokens,
        )
    if timings is not None and timings.prompt_n is not None and timings.predicted_n is not None:
        return Usage(prompt=timings.prompt_n + cached, completion=timings.predicted_n, cached=cached)
    return None


def _timings(timings: seen.Timings | None) -> Timings | None:
    if timings is None:
        return None
    return Timings(prompt=_nanoseconds(timings.prompt_ms), eval=_nanoseconds(timings.predicted_ms))


def _nanoseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1_000_000)


def _logprobs(seen_: seen.Logprobs) -> tuple[TokenLogprob, ...]:
    if seen_.content is not None:
        return tuple(_token(token) for token in seen_.content if token.logprob is not None)
    tokens, numbers = seen_.tokens or (), seen_.token_logprobs or ()
    tops = seen_.top_logprobs or [None] * len(tokens)
    return tuple(
        TokenLogprob(token, number, None, tuple(TokenLogprob(other, value) for other, value in (top or {}).items()))
        for token, number, top in zip(tokens, numbers, tops, strict=False)
        if number is not None
    )


def _token(token: seen.Logprob) -> TokenLogprob:
    top = tuple(
        TokenLogprob(other.token, other.logprob, other.bytes)
        for other in token.top_logprobs or ()
        if other.logprob is not None
    )
    return TokenLogprob(token.token, token.logprob or 0.0, token.bytes, top)
