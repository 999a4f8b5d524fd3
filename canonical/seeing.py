"""What is in a picture: how well labels fit it, and the text that stands in it."""

from __future__ import annotations

from msgspec import Struct

from canonical.media import Blob


class Match(Struct, frozen=True, kw_only=True):
    """Ask how well each label fits the picture, compared with the others."""

    image: Blob
    labels: tuple[str, ...]
    model: str = ""


class Read(Struct, frozen=True, kw_only=True):
    """Ask for the text in the picture."""

    image: Blob
    model: str = ""


class Line(Struct, frozen=True):
    """A piece of text where it was found. ``score`` is 0 to 1; ``box`` are its four corners in pixels, from the top left."""

    text: str
    score: float
    box: tuple[tuple[float, float], ...]
    row: int = -1
    """Pieces of one row stand side by side (a name and its price); -1: unknown."""


class Reading(Struct, frozen=True, kw_only=True):
    """The answer to ``Read``: lines in reading order, those of one row after each other."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """All of it, a row on each line."""
        told: list[str] = []
        row = -1
        for line in self.lines:
            if told and row >= 0 and line.row == row:
                told[-1] = f"{told[-1]} {line.text}"
            else:
                told.append(line.text)
            row = line.row
        return "\n".join(told)
