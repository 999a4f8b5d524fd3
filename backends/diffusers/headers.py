"""The head of a safetensors file: what tensors it has, without reading any."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

_LARGEST = 32 * 1024 * 1024
"""Bytes of a head that are read; SDXL's have 0.4 MB."""
BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
"""Of one number, by the name of its type."""


class Tensor(Struct, frozen=True, gc=False):
    """One of them."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return self.size // BYTES.get(self.dtype, 2)


class Header(Struct, frozen=True):
    """All of them by name, and what the file says of itself."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


class BadFile(Exception):
    """It is no whole safetensors file, and why."""


_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])
_tensor = msgspec.json.Decoder(Tensor)
_metadata = msgspec.json.Decoder(dict[str, str])


def read(path: Path) -> Header:
    """The head of a file.

    Raises:
        BadFile: it is no safetensors, or is cut short.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise BadFile("it is no file")  # a pipe would be waited for
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST, size - 8):
            raise BadFile("it is no safetensors file")
        head = file.read(length)
    try:
        parts = _parts.decode(head)
        told = parts.pop("__metadata__", None)
        tensors = {name: _tensor.decode(part) for name, part in parts.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile("it is no safetensors file") from error
    for tensor in tensors.values():
        begin, end = tensor.data_offsets
        if not 0 <= begin <= end <= size - 8 - length:
            raise BadFile("it is cut short")
    return Header(tensors, _metadata_of(told))


def _metadata_of(told: msgspec.Raw | None) -> dict[str, str]:
    try:
        return _metadata.decode(told) if told is not None else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # it explains nothing, then
        return {}
