"""The answer's half of prompted tools: calls that a model has written into its text become events of calls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from msgspec import structs

from canonical.events import Event, Finished, TextDelta, TokenLogprob, ToolCallDelta
from canonical.written_calls import CallSplitter, Opened, Piece

RESULT = "<tool_response"
"""What a model writes when it makes up a tool's answer: generation stops there."""


class CallReader:
    """One answer's events, with what its text says of calls told as calls.

    ``single``: at most one call is told on. ``forced``: the answer's form is that of a call, so the beginning of one that
    was cut off is no text. ``stops``: the stop strings that are ours and not the client's.
    """

    __slots__ = ("_calls", "_forced", "_logprobs", "_native", "_new_id", "_open", "_single", "_splitter", "_stops")

    def __init__(
        self,
        names: Collection[str],
        new_id: Callable[[], str],
        *,
        single: bool = False,
        forced: bool = False,
        stops: tuple[str, ...] = (),
    ) -> None:
        self._splitter = CallSplitter(names)
        self._new_id = new_id
        self._single = single
        self._forced = forced
        self._stops = stops
        self._calls = 0
        self._open = False
        """Whether pieces of arguments belong to a call that is told."""
        self._native: dict[int, int] = {}
        """Calls that the backend has told itself, by its index -> their place among all."""
        self._logprobs: list[TokenLogprob] = []
        """Of text that is held back."""

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """The events that ``events`` settle."""
        told: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                self._logprobs += event.logprobs
                self._tell(self._splitter.feed(event.text), told)
            elif isinstance(event, ToolCallDelta):
                self._pass(event, told)
            elif isinstance(event, Finished):
                self._end(event, told)
            else:
                told.append(event)
        return told

    def _tell(self, pieces: list[Piece], told: list[Event]) -> None:
        for piece in pieces:
            if isinstance(piece, str):
                told.append(TextDelta(piece, tuple(self._logprobs)))
                self._logprobs.clear()
            elif isinstance(piece, Opened):
                self._logprobs.clear()  # they belong to tokens that are no text
                self._open = self._one_more()
                if self._open:
                    told.append(ToolCallDelta(self._calls - 1, self._new_id(), piece.name))
            elif self._open:
                self._logprobs.clear()
                told.append(ToolCallDelta(self._calls - 1, arguments=piece.text))

    def _one_more(self) -> bool:
        if self._single and self._calls:
            return False
        self._calls += 1
        return True

    def _pass(self, event: ToolCallDelta, told: list[Event]) -> None:
        if event.index not in self._native:
            self._native[event.index] = self._calls - 1 if self._one_more() else -1
        index = self._native[event.index]
        if index >= 0:
            told.append(structs.replace(event, index=index))

    def _end(self, end: Finished, told: list[Event]) -> None:
        if not (self._forced and end.reason == "length" and self._splitter.deciding):
            self._tell(self._splitter.finish(), told)
        if self._logprobs and not self._calls:
            told.append(TextDelta("", tuple(self._logprobs)))
        if self._calls and end.reason == "stop":
            end = structs.replace(end, reason="tool_calls")
        if end.stop_sequence in self._stops:
            end = structs.replace(end, stop_sequence=None)
        told.append(end)


class FirstCall:
    """One answer's events, with at most one call in them, for backends that have no word for that wish."""

    def feed(self, events: Sequence[Event]) -> list[Event]:
        """The same, without any further call."""
        return [event for event in events if not isinstance(event, ToolCallDelta) or event.index == 0]
