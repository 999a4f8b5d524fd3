"""Models that write their thoughts into their text, between tags: told apart in answers, put back in earlier turns.

Put back is what the model itself wrote, as whoever talks to it directly does; its template then keeps or leaves out what
it was made to.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from canonical.events import Event, Finished, ReasoningDelta, TextDelta, TokenLogprob
from canonical.messages import Message, Part, Reasoning, Text
from canonical.requests import Generate
from canonical.think import ThinkSplitter


class InlineThoughts:
    """One answer's events, its thoughts told apart.

    ``opened``: the answer begins in the thought. ``hidden``: nobody wants it. Where both hold, an answer in which no
    thought ends has none: it is told whole, at its end.
    """

    __slots__ = ("_hidden", "_kept", "_logprobs", "_splitter", "_whole")

    def __init__(self, tags: tuple[str, str], *, opened: bool = False, hidden: bool = False) -> None:
        self._splitter = ThinkSplitter(thinking=opened, tags=tags)
        self._hidden = hidden
        self._kept: list[str] | None = [] if opened and hidden else None
        """What would be lost if there was no thought."""
        self._whole: list[TokenLogprob] = []
        self._logprobs: list[TokenLogprob] = []
        """Of text that is held back."""

    def feed(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events that ``events`` settle."""
        if self._splitter.settled:
            return events
        told: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                self._text(event, told)
            elif isinstance(event, Finished):
                self._end(event, told)
            elif not (self._hidden and isinstance(event, ReasoningDelta)):
                told.append(event)
        return told

    def _text(self, event: TextDelta, told: list[Event]) -> None:
        if self._splitter.settled:
            told.append(event)
            return
        if self._kept is not None:
            self._kept.append(event.text)
            self._whole += event.logprobs
        self._logprobs += event.logprobs
        thought = not self._splitter.fresh
        self._tell(self._splitter.feed(event.text), told, thought=thought)
        if not self._splitter.fresh:
            self._logprobs.clear()
        if not self._splitter.thinking:
            self._kept = None

    def _tell(self, pieces: Sequence[TextDelta | ReasoningDelta], told: list[Event], *, thought: bool) -> None:
        """``thought``: what is held of probabilities may be of a thought or of its tags."""
        for piece in pieces:
            if isinstance(piece, TextDelta):
                logprobs = _last(self._logprobs, len(piece.text)) if thought else self._logprobs
                told.append(TextDelta(piece.text, tuple(logprobs)))
            else:
                thought = True
                if not self._hidden:
                    told.append(piece)

    def _end(self, end: Finished, told: list[Event]) -> None:
        rest = self._splitter.finish()
        thought = not self._splitter.fresh
        if self._kept is not None and self._splitter.thinking and end.reason == "stop":
            text = "".join(self._kept)
            rest = [TextDelta(text)] if text else []
            self._logprobs, thought = self._whole, False
        self._tell(rest, told, thought=thought)
        told.append(end)


def _last(tokens: Sequence[TokenLogprob], length: int) -> Sequence[TokenLogprob]:
    """Those that make up the last ``length`` characters."""
    start = len(tokens)
    while start and length > 0:
        start -= 1
        length -= len(tokens[start].token)
    return tokens[start:]


def reinlined(request: Generate, tags: tuple[str, str]) -> Generate:
    """The request with the thoughts of earlier turns in their text, as the model wrote them."""
    if not any(isinstance(part, Reasoning) for message in request.messages for part in message.parts):
        return request
    messages = tuple(_inlined(message, tags) for message in request.messages)
    return structs.replace(request, messages=messages, origin=structs.replace(request.origin, verbatim=False))


def _inlined(message: Message, tags: tuple[str, str]) -> Message:
    thought = "\n".join(part.text for part in message.parts if isinstance(part, Reasoning) and part.text)
    parts: list[Part] = [part for part in message.parts if not isinstance(part, Reasoning)]
    if thought:
        text = f"{tags[0]}\n{thought.strip()}\n{tags[1]}\n\n"
        if parts and isinstance(parts[0], Text):
            parts[0] = Text(text + parts[0].text)
        else:
            parts.insert(0, Text(text))
    return structs.replace(message, parts=tuple(parts))
