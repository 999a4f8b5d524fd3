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


class Reading(Struct, frozen=True, kw_only=True):
    """The answer to ``Read``: lines in reading order."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """All of it, a line each."""
        return "\n".join(line.text for line in self.lines)
