"""A GGUF file in two parts, as ``llama-gguf-split`` leaves it: all metadata in the first, some tensors in each."""

from __future__ import annotations

import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def split(whole: bytes) -> tuple[bytes, bytes]:
    """The two parts."""
    tensors, pairs = struct.unpack_from("<QQ", whole, 8)
    at = 24
    for _ in range(pairs):
        at = _string(whole, at)[1]
        at = _value(whole, *struct.unpack_from("<I", whole, at), at + 4)
    metadata = whole[24:at]
    table: list[tuple[bytes, int]] = []
    for _ in range(tensors):
        begin = at
        at = _string(whole, at)[1]
        (dimensions,) = struct.unpack_from("<I", whole, at)
        at += 4 + 8 * dimensions + 4
        table.append((whole[begin:at], struct.unpack_from("<Q", whole, at)[0]))
        at += 8
    data = at + -at % ALIGNMENT
    ends = [*sorted({offset for _, offset in table}), len(whole) - data]
    rows = [(head, whole[data + offset : data + ends[ends.index(offset) + 1]]) for head, offset in table]
    middle = len(rows) // 2
    return (
        _part(metadata, pairs, 0, len(rows), rows[:middle]),
        _part(b"", 0, 1, len(rows), rows[middle:]),
    )


def _part(metadata: bytes, pairs: int, number: int, total: int, rows: list[tuple[bytes, bytes]]) -> bytes:
    metadata += _pair("split.no", 2, struct.pack("<H", number)) + _pair("split.count", 2, struct.pack("<H", 2))
    metadata += _pair("split.tensors.count", 5, struct.pack("<i", total))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(rows), pairs + 3) + metadata
    data = b""
    for row, content in rows:
        head += row + struct.pack("<Q", len(data))
        data += content + b"\0" * (-len(content) % ALIGNMENT)
    return head + b"\0" * (-len(head) % ALIGNMENT) + data


def _pair(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def _string(whole: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", whole, at)
    return whole[at + 8 : at + 8 + length], at + 8 + length


def _value(whole: bytes, kind: int, at: int) -> int:
    if kind == 8:
        return _string(whole, at)[1]
    if kind == 9:
        inner, count = struct.unpack_from("<IQ", whole, at)
        at += 12
        if inner == 8:
            for _ in range(count):
                at = _string(whole, at)[1]
            return at
        return int(at + SIZES[inner] * count)
    return at + SIZES[kind]
