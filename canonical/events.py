"""What a model answers: a closed set of events, the grammar they obey, and their fold into one answer.

    Started (TextDelta | ReasoningDelta | ToolCallDelta)* Finished

The first fragment of a tool call carries its id and name, later ones never repeat them; indexes count from 0.
Failure is an exception, not an event. Durations are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from canonical.errors import BackendError
from canonical.messages import Reasoning, ToolCall

Reason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]


class TokenLogprob(Struct, frozen=True):
    """A token, its natural-log probability and its alternatives."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


class Usage(Struct, frozen=True, gc=False):
    """Tokens: ``prompt`` counts cached ones too, ``completion`` counts reasoning too."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


class Timings(Struct, frozen=True, gc=False):
    """Nanoseconds; None where nobody measured."""

    total: int | None = None
    load: int | None = None
    prompt: int | None = None
    eval: int | None = None


class Started(Struct, frozen=True, tag=True, gc=False):
    """The backend has begun to answer."""

    model: str = ""


class TextDelta(Struct, frozen=True, tag=True, omit_defaults=True):
    """A piece of the answer's text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(Struct, frozen=True, tag=True, omit_defaults=True, gc=False):
    """A piece of what the model thinks; ``signature`` is a vendor's opaque proof of all pieces since the last one."""

    text: str
    signature: str = ""


class ToolCallDelta(Struct, frozen=True, tag=True, omit_defaults=True, gc=False):
    """A piece of tool call ``index``: id and name on its first piece only, then JSON text of the arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class Finished(Struct, frozen=True, tag=True, omit_defaults=True):
    """The answer is complete. Usage and timings are None unless somebody counted."""

    reason: Reason
    usage: Usage | None = None
    timings: Timings | None = None
    stop_sequence: str | None = None
    """Which of the request's stop strings ended it, where the backend tells."""


Event = Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished


CALLS = 1_000
"""Tool calls of one answer: who reads and who words them look at each more than once."""


class Check:
    """The grammar, enforced once between backend and encoder, so that no encoder is defensive."""

    __slots__ = ("_calls", "_finished", "_started")

    def __init__(self) -> None:
        self._started = self._finished = False
        self._calls = 0

    def feed(self, event: Event) -> None:
        """Raises BackendError when ``event`` may not stand here."""
        kind = type(event)
        if self._finished or (kind is Started) is self._started:
            raise BackendError(f"the backend sent {kind.__name__} out of order")
        if kind is Started:
            self._started = True
        elif kind is Finished:
            self._finished = True
        elif isinstance(event, ToolCallDelta):
            first = event.index == self._calls
            if first:
                self._calls += 1
                if self._calls > CALLS:
                    raise too_many_calls()
            if event.index < 0 or event.index >= self._calls or bool(event.id and event.name) is not first:
                raise BackendError(f"the backend sent a wrong piece of tool call {event.index}")

    def finish(self) -> None:
        """Raises BackendError when the stream ended before its finish reason."""
        if not self._finished:
            raise BackendError("the backend closed the stream before it finished", code="incomplete_stream")


def too_many_calls() -> BackendError:
    """An answer has more than ``CALLS``."""
    return BackendError(f"the backend made more than {CALLS} tool calls in one answer")


class Completion(Struct, frozen=True, kw_only=True):
    """A whole answer."""

    model: str
    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    logprobs: tuple[TokenLogprob, ...]
    reason: Reason
    usage: Usage | None
    timings: Timings | None
    signed: tuple[Reasoning, ...] = ()
    """The same reasoning in the pieces that a vendor signed; empty where nobody signs."""
    stop_sequence: str | None = None


def fold(events: Sequence[Event]) -> Completion:
    """The whole answer that a checked stream tells."""
    model = ""
    text: list[str] = []
    reasoning: list[str] = []
    signed: list[Reasoning] = []
    unsigned = 0
    logprobs: list[TokenLogprob] = []
    calls: list[tuple[str, str, list[str]]] = []
    end = Finished("stop")
    for event in events:
        match event:
            case TextDelta(piece, tokens):
                text.append(piece)
                logprobs.extend(tokens)
            case ReasoningDelta(piece, signature):
                reasoning.append(piece)
                if signature:
                    signed.append(Reasoning("".join(reasoning[unsigned:]), signature))
                    unsigned = len(reasoning)
            case ToolCallDelta(index, id, name, arguments):
                if index == len(calls):
                    calls.append((id, name, []))
                calls[index][2].append(arguments)
            case Started(name):
                model = name
            case Finished():
                end = event
    if signed and (rest := "".join(reasoning[unsigned:])):
        signed.append(Reasoning(rest))
    return Completion(
        model=model,
        text="".join(text),
        reasoning="".join(reasoning),
        tool_calls=tuple(ToolCall(id, name, "".join(arguments)) for id, name, arguments in calls),
        logprobs=tuple(logprobs),
        reason=end.reason,
        usage=end.usage,
        timings=end.timings,
        signed=tuple(signed),
        stop_sequence=end.stop_sequence,
    )
