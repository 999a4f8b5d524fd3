"""The recipe in a PNG's text chunks: A1111's ``parameters``, and the JSON under our own name.

The same picture and recipe give the same bytes: there is no time, no version of a library, and nothing is compressed.
"""

from __future__ import annotations

import json
import re
import zlib

from msgspec import Struct, field

from adapters.recipe.parameters import a1111_text
from adapters.recipe.posted import json_of
from canonical.media import PARTS
from canonical.painting import Paint
from canonical.png import SIGNATURE, chunk, chunks

PARAMETERS = "parameters"
OURS = "dragoman"
LEFT_OUT = "left_out"
"""The field of a recipe that names those that are not in it."""
HEADER_LIMIT = 7168
"""Bytes of a header: clients refuse lines of more than 8 KB."""
TEXT_LIMIT = 1024 * 1024
"""Bytes of all texts that are read from one picture; a few of them, compressed, can stand for gigabytes."""
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_IN_A_HEADER = re.compile(rb"[ -~]*")


class Found(Struct, frozen=True):
    """What a picture says of itself."""

    text: str = ""
    """A1111's; empty: there is none."""
    json: bytes = b""
    """Ours; empty: there is none."""
    others: dict[str, str] = field(default_factory=dict)
    """All other texts, by their keywords."""


def in_png(png: bytes, made: Paint) -> bytes:
    """The PNG with what it was made from, instead of what it said of that before. Anything else than a PNG stays as it is."""
    pieces: list[bytes] = []
    begun = 0
    for number, (kind, start, end) in enumerate(chunks(png) if png.startswith(SIGNATURE) else ()):
        if number == 0:
            if kind != b"IHDR":
                return png
            pieces += (png[:end], _text(PARAMETERS, a1111_text(made)), _text(OURS, json_of(made).decode()))
            begun = end
        elif kind in _TEXTS and _keyword(png[start + 8 : end - 4]) in {PARAMETERS, OURS}:
            pieces.append(png[begun:start])
            begun = end
        elif number > PARTS:
            break
    return b"".join((*pieces, png[begun:]))


def of_png(png: bytes) -> Found:
    """What stands in a picture's texts; nothing where it is none, or damaged."""
    texts: dict[str, str] = {}
    room = TEXT_LIMIT
    for number, (kind, start, end) in enumerate(chunks(png) if png.startswith(SIGNATURE) else ()):
        if number > PARTS or room <= 0:
            break
        if kind in _TEXTS and end - start <= room:
            keyword, text = _keyword(png[start + 8 : end - 4]), _content(kind, png[start + 8 : end - 4], room)
            room -= end - start + len(text)
            texts.setdefault(keyword, text)
    text, ours = texts.pop(PARAMETERS, ""), texts.pop(OURS, "")
    return Found(text, ours.encode("utf-8", "replace"), texts)


def header(png: bytes) -> bytes:
    """The JSON in a picture as the value of a header; ``{}``: there is none that can be."""
    return fitting(of_png(png).json)


def fitting(told: bytes) -> bytes:
    """A recipe as the value of a header: one that is too long goes without its prompts, and says so. ``{}``: it cannot be one."""
    if not told or not _IN_A_HEADER.fullmatch(told):
        return b"{}"
    if len(told) <= HEADER_LIMIT:
        return told
    try:
        fields = json.loads(told)
    except ValueError:
        return b"{}"
    left_out = [name for name in ("prompt", "negative_prompt") if fields.pop(name, None) is not None]
    told = json.dumps({**fields, LEFT_OUT: left_out}, separators=(",", ":")).encode()
    return told if len(told) <= HEADER_LIMIT else b"{}"


def _text(keyword: str, text: str) -> bytes:
    """A chunk of text: Latin-1 where that can be, as A1111 has it, else UTF-8."""
    text = text.replace("\0", " ")
    try:
        return chunk(b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode("utf-8", "replace"))


def _keyword(data: bytes) -> str:
    return data[:80].partition(b"\0")[0].decode("latin-1")


def _content(kind: bytes, data: bytes, room: int) -> str:
    rest = data.partition(b"\0")[2]
    if kind == b"tEXt":
        return rest.decode("latin-1")
    packed = kind == b"zTXt" or rest[:1] == b"\x01"
    rest = rest[1:] if kind == b"zTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, room)
        except zlib.error:
            return ""
    return rest.decode("latin-1" if kind == b"zTXt" else "utf-8", "replace")
