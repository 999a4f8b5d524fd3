"""What the gateway and a worker process tell each other: MessagePack, each message after its length in four bytes.

Data only, over inherited pipes; nothing in it is ever executed.
"""

from __future__ import annotations

import struct
from typing import Literal

import msgspec
from msgspec import Struct

from backends.llama_cpp.engine import Kind, Start

LIMIT = 128 * 1024 * 1024
"""Bytes of one message: a request of the largest body, and room."""
LENGTH = struct.Struct(">I")
CREDIT = 256
"""Chunks of one answer that may be under way; then its generation waits for ``Taken``."""


class Open(Struct, frozen=True, tag=True):
    """First of all: load this model."""

    engine: Literal["xllamacpp", "llama-cpp-python"]
    start: Start


class Ask(Struct, frozen=True, tag=True):
    """Answer this body."""

    id: int
    kind: Kind | Literal["embed", "rerank"]
    body: bytes


class Stop(Struct, frozen=True, tag=True):
    """Nobody wants the answer any more."""

    id: int


class Taken(Struct, frozen=True, tag=True):
    """So many chunks of an answer have been passed on."""

    id: int
    count: int


class Opened(Struct, frozen=True, tag=True):
    """The model is loaded; or it could not be, and why."""

    failure: str = ""


class Chunk(Struct, frozen=True, tag=True):
    """A piece of an answer."""

    id: int
    data: bytes


class Done(Struct, frozen=True, tag=True):
    """An answer is over and its slot free. ``failure``: the engine raised this."""

    id: int
    failure: str = ""


ToWorker = Open | Ask | Stop | Taken
FromWorker = Opened | Chunk | Done

_encode = msgspec.msgpack.Encoder().encode
read_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
read_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def frame(message: ToWorker | FromWorker) -> bytes:
    """One message with its length before it."""
    data = _encode(message)
    return LENGTH.pack(len(data)) + data
