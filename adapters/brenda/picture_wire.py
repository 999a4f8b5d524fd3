"""What goes over the wire about pictures: the requests are the document's, the answers, which it does not tell, are ours."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

LABELS = 1000
LABEL = 2000
"""Characters of one label."""

Share = Annotated[float, Meta(ge=0, le=1)]
Picture = Annotated[
    str,
    Meta(description="PNG, JPEG or WebP of at most 10 MiB, as a data URI (data:image/png;base64,...) or bare base64"),
]


class AnalyzeRequest(Struct, kw_only=True):
    """The body of ``/v1/images/analyze``."""

    image: Picture
    labels: Annotated[list[Annotated[str, Meta(min_length=1, max_length=LABEL)]], Meta(min_length=1, max_length=LABELS)]
    model: str | None = None
    """Not in the document: which model is to look."""


class Score(Struct):
    """How well one label fits."""

    label: str
    score: Share


class Analysis(Struct, kw_only=True):
    """The answer: shares, which are 1 together."""

    scores: dict[str, Share]
    """By label, in the order in which they were sent."""
    results: list[Score]
    """The same, the best first."""
    best: str


class OcrRequest(Struct, kw_only=True):
    """The body of ``/v1/images/ocr``."""

    image: Picture
    model: str | None = None
    """Not in the document: which model is to read."""


class Line(Struct, kw_only=True):
    """A piece of text where it was found."""

    text: str
    confidence: Share
    box: list[tuple[float, float]]
    """Its corners in pixels, from the top left on clockwise; those of the picture as it is seen upright."""


class OcrReply(Struct, kw_only=True):
    """The answer: all text, a row of the picture on each line, and where each piece of it stands."""

    text: str
    lines: list[Line]
