"""Who has to go when more is kept than may be: of the owner who has most, what was used longest ago."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

PAGE = 50


def beyond(
    held: Mapping[str, tuple[int, int]], oldest: Callable[[str], Iterator[tuple[T, int]]], *, limit: int, size: int
) -> list[T]:
    """What must go so that ``limit`` things of ``size`` bytes stay, and nobody drives out what others keep.

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
    return found


def pages(read: Callable[[int], Sequence[T]]) -> Iterator[T]:
    """All that ``read`` finds, ``PAGE`` rows at a time; it is given how many to skip."""
    skip = 0
    while rows := read(skip):
        yield from rows
        if len(rows) < PAGE:
            return
        skip += PAGE
