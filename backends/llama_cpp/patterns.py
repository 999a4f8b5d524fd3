r"""Patterns of JSON Schema as the engines' grammars hold them: in classes of characters, repetitions, groups and choices.

    ^\d{3}-.$  ->  ^[0-9]{3}[\x2D][^\x00-\x1F\x22\x5C\x7F]$

Left to themselves the engines take ``\d`` for any string, or refuse it, and let ``.`` be the quote that ends the string. What
is written here means the same, but for what would have to be escaped in JSON: that is never chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_LAST = 0x10FFFF
_ANY = ((0, _LAST),)
_UNSAFE = ((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF))
"""What does not stand in a string of JSON as it is."""
_DIGITS = ((0x30, 0x39),)
_WORDS = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_BLANK = ((0x20, 0x20),)
_BLANKS = (
    *((0x09, 0x0D), *_BLANK, (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
"""What any dialect of patterns takes for a blank; all agree on the space."""
_CLASSES = {"d": (_DIGITS, _DIGITS), "w": (_WORDS, _WORDS), "s": (_BLANK, _BLANKS)}
"""What a letter surely stands for, and all that it may."""
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_LETTER = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)|.", re.DOTALL)
_REPEAT = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??")

Ranges = tuple[tuple[int, int], ...]


def rewrite(pattern: str) -> str:
    """The pattern, between its anchors.

    Raises:
        ValueError: a part of it has no such form.
    """
    if not (pattern.startswith("^") and pattern.endswith("$")):
        raise ValueError("it has no anchors at its ends")
    text, at, out = pattern[1:-1], 0, []
    while at < len(text):
        if text[at] == "[":
            ranges, at = _class(text, at + 1)
            out.append(_written(ranges))
            continue
        if out and (found := _REPEAT.match(text, at)):
            out.append(found[0] if found[0] == "?" else found[0].rstrip("?"))
            at = found.end()
            continue
        if text.startswith("(?", at):
            if not text.startswith("(?:", at):
                raise ValueError("it looks around")
            out.append("(")
            at += 3
            continue
        letter = _next(text, at)
        at += len(letter)
        if letter in {"(", ")", "|"}:
            out.append(letter)
        elif letter == ".":
            out.append(_written(_ANY))
        elif letter in {"^", "$", "*", "+", "?", "{"}:
            raise ValueError(f"{letter!r} stands where it has no form")
        elif len(letter) == 1 and letter.isascii() and letter.isalnum():
            out.append(letter)
        else:
            out.append(_written(_ranges(letter)))
    return f"^{''.join(out)}$"


def _next(text: str, at: int) -> str:
    found = _LETTER.match(text, at)
    if found is None or found[0] == "\\":
        raise ValueError("it ends too early")
    return found[0]


def _ranges(letter: str, *, wide: bool = False) -> Ranges:
    """The characters that one letter, or one with a backslash, stands for; ``wide``: may stand for."""
    if letter[0] != "\\":
        return ((ord(letter), ord(letter)),)
    kind = letter[1]
    if kind in _CLASSES:
        return _CLASSES[kind][wide]
    if kind.lower() in _CLASSES:
        return _without(_ANY, _CLASSES[kind.lower()][not wide])
    if len(letter) > len("\\d"):
        code = ord(json.loads(f'"\\u{letter[2:]:0>4}"'))
    elif kind in _CONTROLS:
        code = _CONTROLS[kind]
    elif kind.isalnum():
        raise ValueError(f"it has {letter}")
    else:
        code = ord(kind)
    return ((code, code),)


def _class(text: str, at: int) -> tuple[Ranges, int]:
    """The characters between brackets, and the place behind them."""
    negated = text.startswith("^", at)
    at += negated
    found: list[tuple[int, int]] = []
    while not text.startswith("]", at):
        letter = _next(text, at)
        at += len(letter)
        ranges = _ranges(letter, wide=negated) if letter != "\\b" else ((8, 8),)
        if (
            text.startswith("-", at)
            and not text.startswith("-]", at)
            and len(ranges) == 1
            and ranges[0][0] == ranges[0][1]
        ):
            letter = _next(text, at + 1)
            at += 1 + len(letter)
            last = _ranges(letter)
            if len(last) > 1 or last[0][0] != last[0][1] or last[0][0] < ranges[0][0]:
                raise ValueError("it has a range that is none")
            ranges = ((ranges[0][0], last[0][0]),)
        found += ranges
    return (_without(_ANY, tuple(found)) if negated else tuple(found)), at + 1


def _without(ranges: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ranges:
    """``ranges`` less ``others``."""
    left: list[tuple[int, int]] = []
    cuts = sorted(others)
    for first, last in ranges:
        at = first
        for low, high in cuts:
            if low > last:
                break
            if low > at:
                left.append((at, low - 1))
            at = max(at, high + 1)
        if at <= last:
            left.append((at, last))
    return tuple(left)


def _written(ranges: Ranges) -> str:
    """A class of a grammar; everything but letters and digits by its number."""
    safe = sorted(_without(ranges, _UNSAFE))
    if not safe:
        raise ValueError("it asks for what would have to be escaped in JSON")
    if safe[-1][1] == _LAST:  # said by what is left out: no engine likes the last character
        out = _without(_ANY, tuple(safe))
        return f"[^{''.join(map(_range, sorted(out)))}]"
    return f"[{''.join(map(_range, safe))}]"


def _range(ends: tuple[int, int]) -> str:
    low, high = ends
    return _letter(low) if low == high else f"{_letter(low)}-{_letter(high)}"


def _letter(code: int) -> str:
    if code < 0x80:
        return chr(code) if chr(code).isalnum() else f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
