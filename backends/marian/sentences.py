"""A text in sentences and what stands between them: joined again they are the text, to the last blank.

pysbd knows the abbreviations of some twenty languages. It takes a time that grows with the square of what it is given, so
that it sees a window of a text at once; and where it has changed anything, its answer does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pysbd

WINDOW = 600
"""Characters that are split at once, and that a sentence has at most: 15 ms of the worst that pysbd was seen to take."""
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "bo", "dz", "yue"})
"""Languages that put no blank between sentences."""

COMMAS = frozenset(";:,\uff0c\u3001\uff1b")

_BREAK = re.compile("(\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])")
_INNER = re.compile("[.!?\u2026\u061f\u06d4\u0589\u0964\u0965\u1362\u104b\u17d4]\\W{0,5}\\s|[\u3002\uff01\uff1f\uff61]")
"""What a line has that may be of more than one sentence."""
_END = re.compile(
    "[.!?\u2026\u061f\u06d4\u0589\u0964\u0965\u1362\u104b\u17d4]{1,20}[\"'\u201d\u2019\u00bb)\\]]{0,5}(?=\\s)"
    "|[\u3002\uff01\uff1f\uff61]{1,20}[\u300d\u300f\u201d\u2019\uff09]{0,5}"
)
_SHORT = re.compile(r"\b(?:Ste?|p\. ?ex|cf|vgl|z\. ?B|d\. ?h|ca)\.\Z", re.IGNORECASE)
"""What ends in a dot and is no end, though pysbd takes it for one."""
_INITIAL = re.compile(r"\b(?:\w|\d+)\.\Z")
"""Likewise, where pysbd does not know the language: an initial, an ordinal."""
_LOOSE = re.compile(r"\s+|[\uff0c\u3001\uff1b]")


def split(text: str, language: str, stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[str, bool]]:
    """Pieces of the text in their order, and whether each is to be translated. Ends early when ``stop`` says so."""
    for number, line in enumerate(_BREAK.split(text)):
        if number % 2:
            yield line, False
        else:
            yield from _line(line, language, stop)


def _line(line: str, language: str, stop: Callable[[], bool]) -> Iterator[tuple[str, bool]]:
    body = line.strip()
    start = line.find(body) if body else len(line)
    yield line[:start], False
    while body:
        if stop():
            return
        window, cut = _window(body)
        found = _sentences(window, language)
        if cut and len(found) > 1:
            found.pop()  # it may go on behind the window
        for sentence in found:
            bare = sentence.rstrip()
            yield bare, any(map(str.isalpha, bare))
            yield sentence[len(bare) :], False
        body = body[sum(map(len, found)) :]
    yield line[start + len(line.strip()) :], False


def _window(body: str) -> tuple[str, bool]:
    """As much as is looked at; whether more comes."""
    if len(body) <= WINDOW:
        return body, False
    return body[: gap(body, WINDOW)], True


def gap(text: str, end: int) -> int:
    """Where to cut a text that is too long, at most at ``end``: behind a comma or a blank, and not in its first half."""
    half = end // 2
    found = [match.end() for match in _LOOSE.finditer(text, half, end)]
    commas = [place for place in found if text[half:place].rstrip()[-1:] in COMMAS]
    return (commas or found or [end])[-1]


def _sentences(text: str, language: str) -> list[str]:
    """Pieces that are the text; the blanks behind a sentence belong to it."""
    if _INNER.search(text) is None:
        return [text]
    found: list[str] = []
    segmenter = _segmenter(language)
    if segmenter is not None:
        try:
            found = segmenter.segment(text)
        except Exception:  # noqa: BLE001  # a defect of its own, on some odd text; ours is plainer and holds
            found = []
    plain = "".join(found) != text
    if plain:
        found = _plainly(text)
    joined = [found[0]]
    for sentence in found[1:]:
        before = joined[-1].rstrip()[-12:]
        short = _SHORT.search(before) or (plain and _INITIAL.search(before))
        if before.endswith(".") and (short or sentence[:1].islower()):
            joined[-1] += sentence
        else:
            joined.append(sentence)
    return joined


def _plainly(text: str) -> list[str]:
    """At every mark of an end with a blank behind it, in scripts without blanks at every one."""
    found, start = [], 0
    for match in _END.finditer(text):
        end = match.end()
        end += len(text[end:]) - len(text[end:].lstrip())
        found.append(text[start:end])
        start = end
    return [piece for piece in (*found, text[start:]) if piece]


@cache
def _segmenter(language: str) -> pysbd.Segmenter | None:
    import pysbd
    from pysbd.languages import LANGUAGE_CODES

    code = language.partition("-")[0]
    return pysbd.Segmenter(language=code, clean=False) if code in LANGUAGE_CODES else None
