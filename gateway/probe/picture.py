"""Pictures of one colour: the smallest thing that a model with eyes can be asked about."""

from __future__ import annotations

import struct
import zlib

from canonical.media import Blob

SIDE = 64
"""Pixels; models that cut pictures into patches need some."""
COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255)}


def solid(colour: str, *, side: int = SIDE) -> Blob:
    """A square PNG of one of ``COLOURS``."""
    row = b"\0" + bytes(COLOURS[colour]) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(row * side)), (b"IEND", b"")
    return Blob(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks), "image/png")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
