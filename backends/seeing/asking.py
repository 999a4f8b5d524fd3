"""What the gateway and a worker that looks at pictures say to each other."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from canonical.seeing import Line


class Labels(Struct, frozen=True, tag=True):
    """Tell how well each of these fits."""

    image: bytes
    labels: tuple[str, ...]


class Text(Struct, frozen=True, tag=True):
    """Tell what is written there."""

    image: bytes


class Shares(Struct, frozen=True, tag=True):
    """The answer to ``Labels``, in their order."""

    shares: tuple[float, ...]


class Lines(Struct, frozen=True, tag=True):
    """The answer to ``Text``."""

    lines: tuple[Line, ...]


class Refused(Struct, frozen=True, tag=True):
    """What was sent cannot be looked at; in words for who sent it. ``param``: the field at fault."""

    words: str
    param: str = "image"


Asked = Labels | Text
Answered = Shares | Lines | Refused

encode = msgspec.msgpack.Encoder().encode
_asked = msgspec.msgpack.Decoder(Asked)
_answered = msgspec.msgpack.Decoder(Answered)


def read_asked(data: bytes) -> Asked:
    """A question, in the worker."""
    asked: Asked = _asked.decode(data)
    return asked


def read_answered(data: bytes) -> Answered:
    """An answer, in the gateway."""
    answered: Answered = _answered.decode(data)
    return answered
