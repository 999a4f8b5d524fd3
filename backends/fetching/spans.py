"""Which bytes of a file are there: spans ``(start, end)`` in order, none touching another."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]
"""From the first byte to the one after the last."""


class Spans:
    """A set of bytes that grows."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """These bytes are there, too; some of them may have been already."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first span that ends at `start` or later
        last = bisect_right(self._starts, end)  # the first that begins after `end`
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self.total += (end - start) - sum(self._ends[i] - self._starts[i] for i in range(first, last))
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def __iter__(self) -> Iterator[Span]:
        return zip(self._starts, self._ends, strict=True)

    @property
    def frontier(self) -> int:
        """How far it is whole from byte 0 on."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def gaps(self, size: int) -> list[Span]:
        """What is missing of the first ``size`` bytes."""
        found, at = [], 0
        for start, end in self:
            if start >= size:
                break
            if at < start:
                found.append((at, start))
            at = end
        return [*found, (at, size)] if at < size else found


def split(gaps: Iterable[Span], longest: int) -> list[Span]:
    """The same bytes, in pieces of at most ``longest``."""
    return [(at, min(at + longest, end)) for start, end in gaps for at in range(start, end, longest)]
