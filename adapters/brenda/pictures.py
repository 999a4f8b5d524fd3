"""``/v1/images/analyze`` and ``/v1/images/ocr``: bytes -> what is asked of a picture, and what was found -> bytes.

{"scores":{"chat":0.9,"chien":0.1},"results":[{"label":"chat","score":0.9},...],"best":"chat"}
{"text":"Bonjour","lines":[{"text":"Bonjour","confidence":0.99,"box":[[20.0,24.0],...]}]}
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from adapters.brenda import picture_wire as wire
from adapters.reading import fault_of, read_body
from canonical.errors import InvalidRequest, TooLarge
from canonical.media import PICTURES, TOO_LARGE, Blob, image_from_base64
from canonical.seeing import Match, Read, Reading

LIMIT = 10 * 1024 * 1024
"""Bytes of one picture."""

_analyze = msgspec.json.Decoder(wire.AnalyzeRequest)
_ocr = msgspec.json.Decoder(wire.OcrRequest)
_encode = msgspec.json.Encoder().encode


def read_analyze(body: bytes) -> Match:
    """``POST /v1/images/analyze``. A label that stands twice is one.

    Raises:
        InvalidRequest: the body breaks the format or a limit; TooLarge: the picture does.
    """
    asked = read_body(_analyze, body, wrong)
    labels = tuple(dict.fromkeys(asked.labels))
    if any(not label.strip() for label in labels):
        raise InvalidRequest("labels: one of them is blank", param="labels")
    return Match(image=picture(asked.image), labels=labels, model=asked.model or "")


def read_ocr(body: bytes) -> Read:
    """``POST /v1/images/ocr``. Raises as ``read_analyze``."""
    asked = read_body(_ocr, body, wrong)
    return Read(image=picture(asked.image), model=asked.model or "")


def analysis(labels: Sequence[str], shares: Sequence[float]) -> bytes:
    """The answer about ``labels``."""
    scores = dict(zip(labels, shares, strict=True))
    ranked = sorted(scores.items(), key=lambda pair: -pair[1])
    results = [wire.Score(label, score) for label, score in ranked]
    return _encode(wire.Analysis(scores=scores, results=results, best=results[0].label))


def reading(found: Reading) -> bytes:
    """The answer about the text in a picture."""
    lines = [wire.Line(text=line.text, confidence=line.score, box=list(line.box)) for line in found.lines]
    return _encode(wire.OcrReply(text=found.text, lines=lines))


def picture(text: str) -> Blob:
    """A picture as all these routes take it. Raises InvalidRequest, TooLarge."""
    try:
        return image_from_base64(text, param="image", limit=LIMIT, types=PICTURES)
    except InvalidRequest as error:
        if error.code == TOO_LARGE:
            raise TooLarge(error.message, param="image") from error
        raise


def wrong(text: str) -> InvalidRequest:
    """What a body of these routes does wrong, by msgspec's words for it."""
    fault = fault_of(text)
    words = "this is required" if fault.missing else fault.words
    return InvalidRequest(f"{fault.path}: {words}" if fault.path else words, param=fault.path or None)
