"""What the gateway and a worker process tell each other: MessagePack, each message after its length in four bytes.

Data only, over inherited pipes; nothing in it is ever executed. What an ask's body and an answer's chunks hold is
between the two ends of an engine.
"""

from __future__ import annotations

import struct

import msgspec
from msgspec import Struct

LIMIT = 128 * 1024 * 1024
"""Bytes of one message: a request of the largest body, and room."""
LENGTH = struct.Struct(">I")
CREDIT = 256
"""Chunks of one answer that may be under way; then its generation waits for ``Taken``."""


class Open(Struct, frozen=True, tag=True):
    """First of all: load this, and be ready for so many asks at once."""

    start: bytes
    slots: int = 1
    memory: int = 0
    """Bytes that it may have beside mapped files; 0: as many as there are."""
    parent: int = 0
    """The process that it belongs to."""


class Ask(Struct, frozen=True, tag=True):
    """Answer this body."""

    id: int
    kind: str
    body: bytes


class Stop(Struct, frozen=True, tag=True):
    """Nobody wants the answer any more."""

    id: int


class Taken(Struct, frozen=True, tag=True):
    """So many chunks of an answer have been passed on."""

    id: int
    count: int


class Ping(Struct, frozen=True, tag=True):
    """Show that you are alive."""


class Loading(Struct, frozen=True, tag=True):
    """How much is loaded, 0 to 1."""

    part: float


class Opened(Struct, frozen=True, tag=True):
    """It is loaded; or it could not be, and why."""

    failure: str = ""


class Chunk(Struct, frozen=True, tag=True):
    """A piece of an answer."""

    id: int
    data: bytes


class Done(Struct, frozen=True, tag=True):
    """An answer is over and its slot free. ``failure``: the engine raised this."""

    id: int
    failure: str = ""


class Pulse(Struct, frozen=True, tag=True):
    """The answer to ``Ping``."""

    steps: int = 0
    """Signs of life from all asks so far: a token, a piece of a prompt."""
    computing: int = 0
    """Asks that are being computed, and do not wait for their reader."""
    stepping: int = 0
    """Those of them that have made a step already, and so should make more."""
    seconds: float = 0.0
    """Processor time that the process has used."""


ToWorker = Open | Ask | Stop | Taken | Ping
FromWorker = Loading | Opened | Chunk | Done | Pulse

_encode = msgspec.msgpack.Encoder().encode
read_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
read_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def frame(message: ToWorker | FromWorker) -> bytes:
    """One message with its length before it."""
    data = _encode(message)
    return LENGTH.pack(len(data)) + data
