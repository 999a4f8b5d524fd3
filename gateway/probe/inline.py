"""Thoughts that a server leaves in the text of an answer: seen by their tags, and told apart."""

from __future__ import annotations

from msgspec import structs

from canonical.events import Completion, ReasoningDelta, TextDelta
from canonical.think import CLOSE, OPEN, ThinkSplitter


def thinks_inline(answer: Completion) -> bool:
    """Whether thoughts stand between tags in the text."""
    return not answer.reasoning and (begins_thought(answer) or CLOSE in answer.text)


def begins_thought(answer: Completion) -> bool:
    """Whether the text begins with the tag of a thought."""
    return answer.text.lstrip().startswith(OPEN)


def apart(answer: Completion) -> Completion:
    """``answer`` with the thoughts of its text told apart. Where the prompt opened the tag, the text only closes it."""
    splitter = ThinkSplitter(thinking=not begins_thought(answer))
    pieces = [*splitter.feed(answer.text), *splitter.finish()]
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, ReasoningDelta))
    text = "".join(piece.text for piece in pieces if isinstance(piece, TextDelta))
    return structs.replace(answer, reasoning=reasoning, text=text)
