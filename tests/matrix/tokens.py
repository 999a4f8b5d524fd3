"""The demo model's vocabulary, read from its file: for prompts of token ids and for biases."""

from __future__ import annotations

import re
import struct
from functools import cache

from tests.serving import ROOT

_KEY = b"tokenizer.ggml.tokens"
_SPECIAL = re.compile(r"(<\|[a-z_]+\|>)")


@cache
def _vocabulary() -> dict[str, int]:
    """Token -> id. GGUF writes a list as its type, its length, and each string as its length and its bytes."""
    data = (ROOT / "models" / "pip.gguf").read_bytes()
    at = data.index(_KEY) + len(_KEY) + 4 + 4
    (count,) = struct.unpack_from("<Q", data, at)
    at += 8
    found: dict[str, int] = {}
    for number in range(count):
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8
        found[data[at : at + length].decode()] = number
        at += length
    return found


def token(text: str) -> int:
    """The id of a text that is one token."""
    return _vocabulary()[_spelled(text)]


def tokens(text: str) -> list[int]:
    """Ids whose texts join to ``text``: always the longest token that fits, which is not quite what the model's own rules
    would cut but means the same to it."""
    ids = _vocabulary()
    found: list[int] = []
    for piece in _SPECIAL.split(text):
        if piece in ids:
            found.append(ids[piece])
            continue
        rest = _spelled(piece)
        while rest:
            length = next(size for size in range(len(rest), 0, -1) if rest[:size] in ids)
            found.append(ids[rest[:length]])
            rest = rest[length:]
    return found


def _spelled(text: str) -> str:
    """A byte-level vocabulary writes blanks and ends of lines as letters."""
    return text.replace(" ", "\u0120").replace("\n", "\u010a")
