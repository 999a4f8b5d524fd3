"""Who has to go when more is kept than may be: of the owner who has most, what was used longest ago.

Counting all that there is takes milliseconds, so that ``Bounds`` tells how much may be added before it has to be done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")
Oldest = Callable[[str], Iterator[tuple[T, int]]]

FRESH = 60.0
"""Seconds in which a second use is not noted."""
PAGE = 50
"""Rows that are read at once."""
MARGIN = 7
"""Where something has to go, the 128th part of all goes with it: the next one to come need not look again."""
SHARE = 4
"""Gateways that may share a store without keeping more than they may together."""
LOOK = 60.0
"""Seconds after which what is too old is looked for again."""


class Bounds:
    """How much may be kept, and how much of it is left for this gateway as far as it knows."""

    def __init__(self, *, keep: float, limit: int, size: int = 0) -> None:
        self.keep = keep
        self.limit = limit
        self.size = size
        self._count = -1
        self._bytes = -1
        self._look = 0.0

    def must_look(self, now: float, *, count: int = 0, size: int = 0) -> bool:
        """Whether all has to be counted, now that so much is added."""
        self._count -= count
        self._bytes -= size
        return self._count < 0 or self._bytes < 0 or (self.keep >= 0 and now >= self._look)

    def gone(self, held: Mapping[str, tuple[int, int]], oldest: Oldest[T], now: float) -> list[T]:
        """What must go, where so much is held; see ``beyond``."""
        count = sum(count for count, _ in held.values())
        size = sum(size for _, size in held.values())
        self._look = now + LOOK
        found: list[T] = []
        if count > self.limit or size > self.size:
            limit, most = self.limit - (self.limit >> MARGIN), self.size - (self.size >> MARGIN)
            found, count, size = beyond(held, oldest, limit=limit, size=most)
        self._count = (self.limit - count) // SHARE
        self._bytes = (self.size - size) // SHARE
        return found


def beyond(
    held: Mapping[str, tuple[int, int]], oldest: Oldest[T], *, limit: int, size: int
) -> tuple[list[T], int, int]:
    """What must go so that ``limit`` things of ``size`` bytes stay, and nobody drives out what others keep.

    Also how many stay, and their bytes.

    ``held`` tells by owner how many things there are, and their bytes; ``oldest`` an owner's that may go, those used
    longest ago first, each with its bytes.
    """
    counts = {owner: count for owner, (count, _) in held.items()}
    sizes = {owner: bytes for owner, (_, bytes) in held.items()}
    more, bytes = sum(counts.values()) - limit, sum(sizes.values()) - size
    waiting: dict[str, Iterator[tuple[T, int]]] = {}
    found: list[T] = []
    while counts and (more > 0 or bytes > 0):
        most = sizes if bytes > 0 else counts
        owner = max(most, key=most.__getitem__)
        if owner not in waiting:
            waiting[owner] = oldest(owner)
        one = next(waiting[owner], None)
        if one is None:  # all that is left is in the making
            del counts[owner], sizes[owner]
            continue
        thing, weight = one
        found.append(thing)
        counts[owner] -= 1
        sizes[owner] -= weight
        more -= 1
        bytes -= weight
    return found, more + limit, bytes + size


def pages(read: Callable[[int], Sequence[T]]) -> Iterator[T]:
    """All that ``read`` finds, ``PAGE`` rows at a time; it is given how many to skip."""
    skip = 0
    while rows := read(skip):
        yield from rows
        if len(rows) < PAGE:
            return
        skip += PAGE
