"""The long lists in a GGUF file's head, which are read only for who wants them: vocabularies, merges, the table of tensors."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Raw

from backends.llama_cpp import gguf
from canonical.models import Tensor

LONGEST = 1_000_000
"""Values of one list; of a longer one nothing is told."""
ALL = 32 * 1024 * 1024
"""Bytes of all lists that are told, in the file and in JSON; the largest vocabularies have some 20 MiB."""


def read_lists(path: Path) -> tuple[dict[str, Raw], tuple[Tensor, ...]]:
    """The arrays of the metadata as JSON, and the tensors.

    Raises:
        BadGguf, OSError: as ``gguf.read_head``.
    """
    gguf.read_head(path)  # every figure has been looked at once
    with path.open("rb") as file:
        reader = gguf.Reader(file, path.stat().st_size)
        reader.take(8)
        tensors, pairs = reader.u64(), reader.u64()
        lists: dict[str, Raw] = {}
        left = ALL
        for _ in range(pairs):
            key, kind = reader.string(), reader.u32()
            if kind != gguf.ARRAY:
                reader.value(kind)
            else:
                array, count = reader.u32(), reader.u64()
                begin = reader.leave(array, count)
                if count <= LONGEST and reader.at - begin <= left:
                    reader.at = begin
                    values = _values(reader, array, count)
                    if len(values) <= left:
                        left -= len(values)
                        lists[key] = Raw(values)
        return lists, tuple(_tensor(reader) for _ in range(tensors))


def _values(reader: gguf.Reader, kind: int, count: int) -> bytes:
    values = [reader.value(kind) for _ in range(count)]
    return msgspec.json.encode([None if _odd(value) else value for value in values])


def _odd(value: float | str) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _tensor(reader: gguf.Reader) -> Tensor:
    name = reader.string()
    shape = tuple(reader.u64() for _ in range(reader.u32()))
    kind = reader.u32()
    reader.u64()
    return Tensor(name, gguf.TENSOR_TYPES.get(kind, "unknown"), shape)
