"""Loads that fail in a worker, in words for clients: what the engine said, without a path of this machine."""

from __future__ import annotations

import re

from msgspec import Struct

from canonical.errors import BackendError, GatewayError, OutOfMemory

_PATH = re.compile(r"(?:/[^\s/'\":,]+)+/")
_MEMORY = re.compile(
    r"alloc|out of memory|MemoryError|can't start new thread|Resource temporarily unavailable"
    r"|failed to map|\[Errno 12\]",
    re.IGNORECASE,
)
_WORDS = 300
"""Characters of a reason that are told."""


class Failed(Struct, frozen=True):
    """A load that failed."""

    words: str
    """The reason that the engine gave, or how the process ended."""
    said: str
    """What the process printed."""
    starved: bool
    """Memory seems to be the reason."""


def without_paths(words: str) -> str:
    """A reason in short, in which no folder of this machine is named."""
    return _PATH.sub("", words)[:_WORDS]


def could_not(name: str, failed: Failed, words: str = "") -> GatewayError:
    """The error of a load that failed. ``words``: a better reason than the engine gave."""
    told = without_paths(words or failed.words)
    message = f"the model {name!r} could not be loaded: {told}"
    last = failed.said.rstrip().rpartition("\n")[2]  # a process that ends itself says there why
    if failed.starved or _MEMORY.search(f"{told} {failed.words} {last}"):
        return OutOfMemory(message)
    return BackendError(message)
