"""What a picture was made from, beside it: as JSON, and as the text that users of A1111 know."""

from __future__ import annotations

from canonical.painting import Paint


def in_png(png: bytes, made: Paint) -> bytes:  # noqa: ARG001  what it says is written next
    """The PNG, with what it was made from in its text chunks."""
    return png
