r"""``<think>`` splitter: a model's raw text, in any slices, becomes events of reasoning and of text.

    "<think>\nI must add.\n</think>\n\n15"  ->  ReasoningDelta("I must add."), TextDelta("15")

Thinking stands at the very beginning of an answer; a tag after text is text. White space around either tag belongs to
the tags. Held back is exactly what may still turn out to be a part of a tag or white space before one.
"""

from __future__ import annotations

from canonical.events import ReasoningDelta, TextDelta

OPEN, CLOSE = "<think>", "</think>"
BLANKS = 1_024
"""Characters of white space that may belong to a tag behind them: who waits for more holds back what never ends."""


def held(text: str, tag: str) -> int:
    """How many of the last characters of ``text`` are a beginning of ``tag``, without being all of it."""
    for count in range(min(len(tag) - 1, len(text)), 0, -1):
        if text.endswith(tag[:count]):
            return count
    return 0


class ThinkSplitter:
    """One answer's text -> events. ``thinking``: the prompt has already opened the tag; it may be opened again."""

    __slots__ = ("_close", "_open", "_rest", "_state")

    def __init__(self, *, thinking: bool = False, tags: tuple[str, str] = (OPEN, CLOSE)) -> None:
        self._open, self._close = tags
        self._state = "entered" if thinking else "start"
        self._rest = ""

    @property
    def fresh(self) -> bool:
        """Whether nothing is known yet."""
        return self._state == "start"

    @property
    def settled(self) -> bool:
        """Whether all that comes now is text."""
        return self._state == "text"

    @property
    def thinking(self) -> bool:
        """Whether a thought has begun and not ended."""
        return self._state in {"entered", "opened", "thinking"}

    def feed(self, text: str) -> list[TextDelta | ReasoningDelta]:
        """The events that ``text`` settles."""
        events: list[TextDelta | ReasoningDelta] = []
        text = self._rest + text
        self._rest = ""
        if self._state in {"start", "entered"}:
            start = text.lstrip()
            if start.startswith(self._open):
                self._state, text = "opened", start[len(self._open) :]
            elif self._open.startswith(start) and len(text) < BLANKS + len(self._open):
                self._rest = text
                return events
            else:
                self._state = "text" if self._state == "start" else "opened"
        if self._state == "opened":
            text = text.lstrip()
            if text:
                self._state = "thinking"
        if self._state == "thinking":
            thought, closed, after = text.partition(self._close)
            if not closed:
                thought = text[: len(text) - held(text, self._close)]
            kept = thought.rstrip()
            if not closed and len(thought) - len(kept) > BLANKS:
                kept = thought
            if kept:
                events.append(ReasoningDelta(kept))
            if not closed:
                self._rest = text[len(kept) :]
                return events
            self._state, text = "closed", after
        if self._state == "closed":
            text = text.lstrip()
            if text:
                self._state = "text"
        if self._state == "text" and text:
            events.append(TextDelta(text))
        return events

    def finish(self) -> list[TextDelta | ReasoningDelta]:
        """What was held back and never became a tag. A thought cut off before its end is a thought."""
        rest, self._rest = self._rest, ""
        if self.thinking:
            rest = rest.strip() if self._state == "entered" else rest.rstrip()
        if not rest:
            return []
        return [ReasoningDelta(rest) if self.thinking else TextDelta(rest)]
