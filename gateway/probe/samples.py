"""Pictures of one colour and a sound: the smallest things that a model with eyes or ears can be asked about."""

from __future__ import annotations

import math
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


def tone(*, seconds: float = 1.0, rate: int = 16_000) -> Blob:
    """A WAV file of an even tone of 440 Hz."""
    samples = (round(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(int(seconds * rate)))
    data = b"".join(struct.pack("<h", sample) for sample in samples)
    kind = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)  # PCM, one channel, 16 bits
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(kind)) + kind + b"data" + struct.pack("<I", len(data)) + data
    return Blob(b"RIFF" + struct.pack("<I", len(body)) + body, "audio/wav")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
