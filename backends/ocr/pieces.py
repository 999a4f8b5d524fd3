"""How a picture is cut that is much higher than wide, a receipt or a screenshot: shrunk as a whole, nobody could read it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from canonical.seeing import Line

TALL = 1.5
"""Times its width from which on a picture, of a till or a screen, is looked at in pieces one below the other."""
OVERLAP = 0.2
"""Of a piece's height that the next one shows again: a line that one cuts is whole in the other."""
SHORT = 960
"""Pixels below which a piece is not cut any further."""


class Piece(Struct, frozen=True):
    """A part of a picture that is looked at by itself: its rows of pixels, and those whose lines it shows whole.

    The latter are the next one's as well for a stretch: where a line is, is found to a few pixels only.
    """

    top: int
    bottom: int
    first: float
    last: float


def pieces(width: int, height: int) -> list[Piece]:
    """How a picture is cut: not at all, unless it is much higher than wide."""
    size = max(int(TALL * width), SHORT)
    if height <= size * 4 // 3:
        return [Piece(0, height, 0, height)]
    shared = int(size * OVERLAP)
    tops = list(range(0, height - shared, size - shared))
    return [
        Piece(
            top,
            min(top + size, height),
            top + shared / 4 if top else 0,
            top + size - shared / 4 if top != tops[-1] else height,
        )
        for top in tops
    ]


def add(found: list[Line], more: Iterable[Line]) -> None:
    """Add the lines of another piece but those that are there already."""
    before = [_extent(line) for line in found]
    for line in more:
        left, right, down, height = _extent(line)
        if not any(
            abs(down - other_down) < min(height, other_height) / 2
            and min(right, other_right) - max(left, other_left) > min(right - left, other_right - other_left) / 2
            for other_left, other_right, other_down, other_height in before
        ):
            found.append(line)


def middle(line: Line) -> float:
    """How far from the top it is."""
    return sum(y for _, y in line.box) / len(line.box)


def _extent(line: Line) -> tuple[float, float, float, float]:
    """Its left and right end, its middle from the top, and how high it is."""
    across = [x for x, _ in line.box]
    return min(across), max(across), middle(line), max(abs(line.box[3][1] - line.box[0][1]), 1.0)
