"""How a picture is cut that is much higher than wide, a receipt or a screenshot: shrunk as a whole, nobody could read it."""

from __future__ import annotations

from msgspec import Struct

TALL = 1.5
"""Times its width from which on a picture, of a till or a screen, is looked at in pieces one below the other."""
OVERLAP = 0.2
"""Of a piece's height that the next one shows again: a line that one cuts is whole in the other."""
SHORT = 960
"""Pixels below which a piece is not cut any further."""


class Piece(Struct, frozen=True):
    """A part of a picture that is looked at by itself: its rows of pixels, and those whose lines count as found there."""

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
            top + shared / 2 if top else 0,
            top + size - shared / 2 if top != tops[-1] else height,
        )
        for top in tops
    ]
