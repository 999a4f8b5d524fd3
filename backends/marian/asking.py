"""What the gateway and a worker tell each other of translations."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class Orders(Struct, frozen=True, kw_only=True):
    """Load this model."""

    root: str
    name: str
    sources: tuple[str, ...]
    """See ``MarianModelSettings``."""
    cache: str
    compute_type: str
    beam: int
    threads: int


class Work(Struct, frozen=True, kw_only=True):
    """Translate these."""

    texts: tuple[str, ...]
    source: str
    target: str
    others: int = 0
    """Ways of saying it besides the best one."""


Said = tuple[tuple[str, ...], ...]
"""For each text the best way of saying it, and then others."""

write = msgspec.msgpack.Encoder().encode
read_orders = msgspec.msgpack.Decoder(Orders).decode
read_work = msgspec.msgpack.Decoder(Work).decode
read_said = msgspec.msgpack.Decoder(Said).decode
