"""What can go wrong at a registry, one switch each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Where = Literal["data", "blob", "manifest", "token", "upload", "resolve", "api"]
"""The CDN's answers with content; the registry's that lead there; and the others."""
Kind = Literal[
    "status",  # answers ``value`` instead; ``text``: its Retry-After
    "drop",  # closes after ``value`` bytes of the body
    "stall",  # falls silent after ``value`` bytes
    "no ranges",  # answers 200 with all of it
    "few",  # gives ``value`` bytes of a range, and says so
    "odd range",  # answers 206 with other bytes than were asked for
    "flip",  # the byte at ``value`` is another one
    "short",  # says a length that is ``value`` more than comes, and closes
    "size",  # says that the file has ``value`` bytes
    "etag",  # says the tag ``text``
    "gzip",  # says that the body is compressed
    "redirect",  # leads to ``text``
    "drip",  # sends ``value`` bytes at a time
    "endless",  # a body that never ends
    "header",  # a header of ``value`` bytes
    "body",  # ``text`` in place of the body
]


@dataclass
class Fault:
    kind: Kind
    value: int = 0
    text: str = ""
    where: Where = "data"
    times: int = 1_000_000
    """How many requests meet it."""
    after: int = 0
    """How many pass before."""
