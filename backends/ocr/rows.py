"""Pieces of text in the order in which people read them: rows from the top, and in each from the left."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, structs

from canonical.seeing import Line

SHARE = 0.5
"""Of the lower one's height, by which the middles of two pieces of one row may differ."""


class _Piece(Struct):
    line: Line
    left: float
    middle: float
    height: float


def in_rows(lines: Iterable[Line]) -> tuple[Line, ...]:
    """The same, ordered, each with the number of its row.

    A row may slope, as on a photograph: a piece is compared with the one beside it, not with the row's first.
    """
    rows: list[list[_Piece]] = []
    for piece in sorted(map(_piece, lines), key=lambda one: (one.middle, one.left)):
        near = [(distance, row) for row in rows if (distance := _distance(piece, row)) is not None]
        if near:
            min(near, key=lambda found: found[0])[1].append(piece)
        else:
            rows.append([piece])
    rows.sort(key=lambda row: min(piece.middle for piece in row))
    return tuple(
        structs.replace(piece.line, row=number)
        for number, row in enumerate(rows)
        for piece in sorted(row, key=lambda one: one.left)
    )


def _piece(line: Line) -> _Piece:
    across, down = [x for x, _ in line.box], [y for _, y in line.box]
    # The left edge's height, not the whole box's: that of a line that slopes is much higher.
    height = max(abs(line.box[3][1] - line.box[0][1]), 1.0)
    return _Piece(line, min(across), sum(down) / len(down), height)


def _distance(piece: _Piece, row: list[_Piece]) -> float | None:
    """How far it is from the nearest piece of a row; None: it does not belong there."""
    beside = min(row, key=lambda other: abs(other.left - piece.left))
    apart = abs(beside.middle - piece.middle)
    return apart if apart <= SHARE * min(beside.height, piece.height) else None
