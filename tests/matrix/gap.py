"""The demo model with tokens for filling a gap, which it was not trained for: what it says then is stable, and nonsense."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.matrix.tokens import token
from tests.serving import ROOT

_HEAD = 24
"""Bytes before the metadata: magic, version, how many tensors, and at 16 how many keys."""
_ALIGNMENT = 32
"""Of the tensors, whose place counts from the file's start: what is put before them keeps it."""
_UINT32, _STRING = 4, 8
_TOKENS = {"pre": " is", "suf": " to", "mid": " the"}


def write_filler(path: Path) -> None:
    """Write the model to ``path``: the file as it is, with four keys more."""
    data = (ROOT / "models" / "pip.gguf").read_bytes()
    (keys,) = struct.unpack_from("<Q", data, 16)
    added = b"".join(
        _key(f"tokenizer.ggml.fim_{name}_token_id", _UINT32) + struct.pack("<I", token(text))
        for name, text in _TOKENS.items()
    )
    note = _key("general.comment", _STRING)
    size = -(len(added) + len(note) + 8) % _ALIGNMENT
    added += note + struct.pack("<Q", size) + b"-" * size
    path.write_bytes(data[:16] + struct.pack("<Q", keys + len(_TOKENS) + 1) + added + data[_HEAD:])


def _key(name: str, kind: int) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind)
