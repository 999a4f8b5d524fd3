"""Tool calls that a model writes into its text: text in any slices becomes text and calls, the arguments as they come.

Held back is what may still become a call, and the white space before one. What looks like a call and is none stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import cast

from msgspec import Struct

from canonical.call_heads import CLOSE, FENCE, HEAD_LIMIT, OPEN, WHOLE_LIMIT, More, NoCall, Place, calls, head
from canonical.think import held

BLANKS = 256
"""Characters of white space before a call that belong to it."""
GARBAGE = 40
"""Characters between a call and its closing tag that are passed over."""
PATIENCE = 512 * 1024
"""What looking for calls in one answer may cost, in characters; behind it all is text. Whoever writes a model's answer
chooses what is searched, and calls that came to nothing are searched again."""
LOOK = 64
"""The least that looking at what may be a call costs."""
SLICE = 4_096
"""Characters that are looked at at once: what is held stays short, however much comes."""

_MARK = re.compile(r"<tool_call>|(?<=\n)(?:```|[{\[])")
_TAG = re.compile(r"</?tool_call>")
_STEPS = re.compile(r'["{}\[\]]')
_QUOTED = re.compile(r'["\\]')


class Opened(Struct, frozen=True):
    """A call of this tool begins."""

    name: str


class Arguments(Struct, frozen=True):
    """A piece of its arguments."""

    text: str


Piece = str | Opened | Arguments


class Extent:
    """Finds the end of one JSON object or list, in any slices. ``depth``: how many are open already."""

    __slots__ = ("_depth", "_escaped", "_quoted")

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._quoted = self._escaped = False

    def feed(self, text: str, at: int = 0) -> int:
        """Where the value in ``text`` ends, from ``at`` on; -1: not yet."""
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_QUOTED if self._quoted else _STEPS).search(text, at)
            if found is None:
                return -1
            at = found.end()
            match found[0]:
                case "\\":
                    self._escaped = True
                case '"':
                    self._quoted = not self._quoted
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._depth <= 0:
                        return at
        return -1


class CallSplitter:
    """One answer's text -> text and calls of the tools in ``names``.

    Each state is a method that settles one piece of what is held, and says whether to go on.
    """

    __slots__ = (
        "_called",
        "_extent",
        "_final",
        "_gap",
        "_line",
        "_names",
        "_object",
        "_patience",
        "_place",
        "_rest",
        "_seen",
        "_state",
    )

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._state: Callable[[list[Piece]], bool] = self._text
        self._rest = self._gap = ""
        self._line = True
        """Whether what is held begins a line. The first one may be indented."""
        self._called = False
        """Whether the last piece was a call: white space behind it belongs to it."""
        self._place: Place | None = None
        """What is open around a call that has ended."""
        self._object = self._seen = 0
        """Where in what is held an object begins that must come whole, and how much of it the extent has seen."""
        self._extent = Extent()
        self._patience = PATIENCE
        self._final = False

    @property
    def deciding(self) -> bool:
        """Whether something is held that may be a call."""
        return self._state in (self._decide, self._whole)

    def feed(self, text: str) -> list[Piece]:
        """What ``text`` settles."""
        found: list[Piece] = []
        for at in range(0, len(text) or 1, SLICE):
            self._rest += text[at : at + SLICE]
            while self._rest and self._state(found):
                pass
        return _joined(found)

    def finish(self) -> list[Piece]:
        """What was held back: a call that has not said what it calls is text."""
        self._final = True
        return self.feed("")

    def _text(self, found: list[Piece]) -> bool:
        rest = self._rest
        start = len(rest) - len(rest.lstrip()) if self._line else 0
        mark = _MARK.search(rest)
        if self._line and rest.startswith(("{", "[", FENCE), start):
            at = start
        elif mark is not None:
            at = mark.start()
        elif self._final:
            self._tell(found, rest)
            self._rest = ""
            return False
        else:
            cut = len(rest) - (held(rest, OPEN) if "<" in rest else 0)
            ticks = len(rest) - len(rest.rstrip("`"))
            if 0 < ticks < len(FENCE) and (
                rest[-ticks - 1 : -ticks] == "\n" or (self._line and start == len(rest) - ticks)
            ):
                cut = len(rest) - ticks
            cut = _before(rest, cut)
            self._rest = rest[cut:]
            self._tell(found, rest[:cut])
            return False
        cut = _before(rest, at)
        self._gap, self._rest = rest[cut:at], rest[at:]
        self._tell(found, rest[:cut])
        self._state = self._decide
        return True

    def _decide(self, found: list[Piece]) -> bool:
        """At a mark, or at an object inside a place."""
        if self._patience < 0:
            self._tell(found, self._gap)
            self._gap, self._state = "", self._plain
            return True
        try:
            call = head(self._rest, self._names, self._place)
        except More:
            return self._no_call(found) if self._final else False
        except NoCall:
            self._patience -= LOOK
            return self._no_call(found)
        self._patience -= LOOK
        self._place = call.place
        self._extent = Extent()
        if call.name:
            found.append(Opened(call.name))
            self._rest = self._rest[call.at :]
            self._state = self._arguments
        else:
            self._object = self._seen = call.at
            self._state = self._whole
        return True

    def _no_call(self, found: list[Piece]) -> bool:
        mark = next(mark for mark in (OPEN, FENCE, "{", "[") if self._rest.startswith(mark))
        self._tell(found, self._gap + mark)
        self._gap, self._rest = "", self._rest[len(mark) :]
        self._place = None
        self._state = self._code if mark == FENCE else self._text
        return True

    def _plain(self, found: list[Piece]) -> bool:
        """Behind too many that were none."""
        self._tell(found, self._rest)
        self._rest = ""
        return False

    def _code(self, found: list[Piece]) -> bool:
        """A fenced block that is no call, and whatever stands in it neither."""
        before, fence, after = self._rest.partition(FENCE)
        if fence:
            self._tell(found, before + fence)
            self._rest = after
            self._state = self._text
            return True
        cut = len(self._rest) - (0 if self._final else held(self._rest, FENCE))
        self._tell(found, self._rest[:cut])
        self._rest = self._rest[cut:]
        return False

    def _whole(self, found: list[Piece]) -> bool:
        end = self._extent.feed(self._rest, self._seen)
        self._seen = len(self._rest)
        if end < 0 and not self._final and self._seen <= WHOLE_LIMIT:
            return False
        assert self._place is not None
        text = self._rest[self._object : end] if 0 < end <= WHOLE_LIMIT else ""
        try:
            written = calls(text, self._names, loose=self._place.tagged)
        except NoCall:
            self._patience -= end if end > 0 else self._seen
            return self._no_call(found)
        for name, arguments in written:
            found += (Opened(name), Arguments(arguments))
        self._rest = self._rest[end:]
        self._state = self._after
        return True

    def _arguments(self, found: list[Piece]) -> bool:
        end = self._extent.feed(self._rest)
        if end < 0:
            found.append(Arguments(self._rest))
            self._rest = ""
            return False
        found.append(Arguments(self._rest[:end]))
        self._rest = self._rest[end:]
        self._extent = Extent(1)
        self._state = self._close
        return True

    def _close(self, _: list[Piece]) -> bool:
        """Behind the arguments: the object around them may have more fields, which say nothing."""
        self._rest = self._rest.lstrip()
        if self._rest:
            self._state = self._skip if self._rest[0] in ",}" else self._after
            self._seen = 0
        return True

    def _skip(self, _: list[Piece]) -> bool:
        end = self._extent.feed(self._rest, self._seen)
        self._seen = len(self._rest)
        if end < 0 and not self._final and self._seen <= HEAD_LIMIT:
            return False
        self._state = self._after
        if 0 < end <= HEAD_LIMIT:
            self._rest = self._rest[end:]
        else:
            self._patience -= self._seen
        return True

    def _after(self, _: list[Piece]) -> bool:
        """Behind a call: another one, or the ends of what stands around it."""
        self._gap, self._called, self._line = "", True, True
        place = self._place or Place()
        rest = self._rest.lstrip(", \t\r\n" if place.listed else None)
        self._rest = rest
        if not rest:
            return False
        if rest[0] == "{" and (place.listed or place.tagged or place.fenced):
            self._state = self._decide
        elif place.listed:
            self._place = Place(tagged=place.tagged, fenced=place.fenced)
            self._rest = rest.removeprefix("]")
        elif place.tagged:
            found = _TAG.search(rest, 0, GARBAGE + len(CLOSE))
            if found is None and len(rest) < GARBAGE + len(CLOSE) and not self._final:
                return False
            self._place = Place(fenced=place.fenced)
            if found is not None:
                self._rest = rest[found.end() if found[0] == CLOSE else found.start() :]
        elif place.fenced and rest.startswith(OPEN):
            self._state = self._decide
        elif place.fenced and rest.startswith(FENCE):
            self._place = None
            self._rest = rest.removeprefix(FENCE)
        elif place.fenced and not self._final and (OPEN.startswith(rest) or FENCE.startswith(rest)):
            return False
        else:
            self._place = None
            self._state = self._text
        return True

    def _tell(self, found: list[Piece], text: str) -> None:
        if self._called:
            text = text.lstrip()
        if text:
            found.append(text)
            self._called = False
            self._line = self._line and text.isspace()


def _joined(found: list[Piece]) -> list[Piece]:
    """The same with texts, and pieces of arguments, in one where they follow each other."""
    if len(found) < 2:
        return found
    joined: list[Piece] = []
    for kind, pieces in groupby(found, type):
        if kind is str:
            joined.append("".join(cast("Iterator[str]", pieces)))
        elif kind is Arguments:
            joined.append(Arguments("".join([piece.text for piece in cast("Iterator[Arguments]", pieces)])))
        else:
            joined.extend(pieces)
    return joined


def _before(text: str, at: int) -> int:
    """Where the white space before ``at`` begins, as far as it may belong to a call."""
    return max(len(text[:at].rstrip()), at - BLANKS)
