"""The chunks of a PNG: how one is made, and where they stand. What is in them is others' business."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk, with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, and where it begins and ends, up to IEND or to where the file is cut.

    Whoever counts on there being few of them has to count.
    """
    at = len(SIGNATURE)
    while at + 12 <= len(png):
        kind, end = png[at + 4 : at + 8], at + 12 + int.from_bytes(png[at : at + 4], "big")
        yield kind, at, end
        if kind == b"IEND":
            return
        at = end


_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers of a pixel, by the type of colour."""
_PASSES = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
"""Of an interlaced picture: its first column and the distance of the next, and the same of rows."""
_SPARE = 65_536
"""Bytes behind the last row that an encoder may leave."""
_PIECE = 1024 * 1024


def pixel_bytes(png: bytes) -> int:
    """Bytes that its pixels are before they are compressed, by its header; 0: it has none that can be."""
    if len(png) < 33 or png[12:16] != b"IHDR":
        return 0
    width, height, depth, colours, _, _, interlaced = struct.unpack_from(">IIBBBBB", png, 16)
    bits = depth * _SAMPLES.get(colours, 0)
    if not bits or depth > 16:
        return 0
    passes = _PASSES if interlaced else ((0, 1, 0, 1),)
    total = 0
    for left, right, top, down in passes:
        columns, rows = len(range(left, width, right)), len(range(top, height, down))
        total += rows * (1 + (columns * bits + 7) // 8) if columns else 0
    return total


_BESIDE = 1024 * 1024
"""Bytes that a compressed text, or a profile of colours, may come to."""


def is_bomb(png: bytes) -> bool:
    """Whether what is compressed in it comes to far more than there is reason for: its pixels, a text, a profile.

    Nothing is inflated further than that; all of its pixels are, which takes about as long as decoding it.
    """
    pixels = zlib.decompressobj()
    left = pixel_bytes(png) + _SPARE
    for kind, begin, end in chunks(png):
        data = png[begin + 8 : end - 4]
        if kind == b"IDAT":
            left = _inflated(pixels, data, left)
        elif kind in _COMPRESSED:
            *_, packed = data.split(b"\0", _COMPRESSED[kind])
            if kind != b"iTXt" or data.partition(b"\0")[2][:1] == b"\1":
                left = min(left, _inflated(zlib.decompressobj(), packed[kind != b"iTXt" :], _BESIDE))
        if left < 0:
            return True
    return False


_COMPRESSED = {b"iCCP": 1, b"zTXt": 1, b"iTXt": 4}
"""Chunks with something compressed in them, and how many zero bytes stand before it, or are among what does."""


def _inflated(inflating: zlib._Decompress, data: bytes, left: int) -> int:
    """How many bytes more are allowed after these; negative: it was too much. What is damaged counts as nothing."""
    while data and not inflating.eof:
        try:
            left -= len(inflating.decompress(data, min(_PIECE, left + 1)))
        except zlib.error:
            return left  # which the decoder tells
        if left < 0:
            return left
        data = inflating.unconsumed_tail
    return left
