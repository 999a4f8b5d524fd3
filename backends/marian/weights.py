"""Tensors in safetensors files, mapped into memory rather than read: a conversion then takes what it writes, not what it reads.

A file is eight bytes of length, so many bytes of JSON, and the numbers. Every place is checked against the file before use.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np

HEAD_LIMIT = 16 * 1024 * 1024
"""Bytes of a file's JSON; Marian's have some 30 kB."""
_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I8": 1, "U8": 1, "I16": 2, "I32": 4, "I64": 8, "BOOL": 1}


class BadWeights(ValueError):
    """It is no safetensors file, or not all of one."""


class _Entry(Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Placed(Struct, frozen=True):
    """Where a tensor is."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def read_head(path: Path) -> dict[str, Placed]:
    """The tensors of one file by their names. Raises BadWeights, OSError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(HEAD_LIMIT, size - 8):
            raise BadWeights(f"{path.name} is not a safetensors file, or not all of one")
        head = file.read(length)
    try:
        rows = msgspec.json.decode(head, type=dict[str, Any])
        rows.pop("__metadata__", None)
        entries = msgspec.convert(rows, dict[str, _Entry])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadWeights(f"{path.name} is not a safetensors file") from error
    room = size - 8 - length
    found = {}
    for name, entry in entries.items():
        begin, end = entry.data_offsets
        width = _SIZES.get(entry.dtype, 0)
        if not width or min(entry.shape, default=0) < 0 or not 0 <= begin <= end <= room:
            raise BadWeights(f"{path.name} is cut off, or its tensor {name[:80]!r} is of a kind that is not known")
        if math.prod(entry.shape) * width != end - begin:
            raise BadWeights(f"{path.name} has a tensor {name[:80]!r} whose size is not that of its shape")
        found[name] = Placed(path, entry.dtype, entry.shape, 8 + length + begin)
    return found


class Weights(Mapping[str, "np.ndarray[Any, Any]"]):
    """All tensors of some files, as arrays of 32 or 16 bits. Raises BadWeights, OSError when made."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._placed = {name: placed for path in paths for name, placed in read_head(path).items()}

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor. Raises KeyError; BadWeights for one that is not of floating point."""
        import numpy as np

        placed = self._placed[name]
        if placed.dtype not in {"F32", "F16", "BF16"}:
            raise BadWeights(f"the tensor {name!r} is of the kind {placed.dtype}, which Marian's models do not have")
        if not placed.count:
            return np.zeros(placed.shape, dtype="<f4")
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[placed.dtype]
        # Whoever changes one changes a copy: the converter scales in place.
        array = np.memmap(placed.path, dtype=kind, mode="c", offset=placed.begin, shape=placed.shape)
        if placed.dtype != "BF16":
            return array
        return (array.astype("<u4") << 16).view("<f4")

    def __iter__(self) -> Iterator[str]:
        return iter(self._placed)

    def __len__(self) -> int:
        return len(self._placed)
