"""What the gateway and a worker that paints say to each other."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from backends.diffusers.start import Laid
from canonical.painting import Paint


class Asked(Struct, frozen=True):
    """Paint this, complete as it is, with these adapters over the model."""

    request: Paint
    loras: tuple[Laid, ...] = ()


class Stepped(Struct, frozen=True, tag=True):
    """A step is done. ``preview``: a PNG, or empty."""

    done: int
    total: int
    index: int
    preview: bytes = b""


class Drawn(Struct, frozen=True, tag=True):
    """A picture is done: a PNG with its recipe in it."""

    index: int
    image: bytes
    warnings: tuple[str, ...] = ()


class Refused(Struct, frozen=True, tag=True):
    """It cannot be painted; in words for who asked. ``param``: the field at fault; empty: none of them."""

    words: str
    param: str = ""
    starved: bool = False
    """Memory ran out."""


Told = Stepped | Drawn | Refused

encode = msgspec.msgpack.Encoder().encode
_asked = msgspec.msgpack.Decoder(Asked)
_told = msgspec.msgpack.Decoder(Told)


def read_asked(data: bytes) -> Asked:
    """What is asked, in the worker."""
    return _asked.decode(data)


def read_told(data: bytes) -> Told:
    """A piece of the answer, in the gateway."""
    told: Told = _told.decode(data)
    return told
