"""One job, as it is seen at a moment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from canonical.media import Blob
from canonical.painting import Paint

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Result(Struct, frozen=True, kw_only=True):
    """A finished picture. ``name`` is that of its file, which nobody can guess."""

    name: str
    size: int
    """Bytes."""
    made: Paint
    """What it was made from, complete; without the images that it began with."""
    digest: str = ""
    """SHA-256 of the file, in hexadecimal."""
    warnings: tuple[str, ...] = ()


class Queue(Struct, frozen=True, kw_only=True):
    """How many jobs there are that are not over, of all keys."""

    waiting: int = 0
    running: int = 0
    reachable: bool = True
    """Whether the server can be reached over which workers get jobs; true where there is none."""


class Job(Struct, frozen=True, kw_only=True):
    """A job at one moment. Times are seconds since 1970; 0: not yet."""

    id: str
    """A UUID."""
    owner: str
    """Stands for the key that it came with."""
    request: Paint
    """Complete; without the images that it begins with."""
    state: State = "queued"
    dialect: str = ""
    """In which it was asked for."""
    created: float = 0
    started: float = 0
    finished: float = 0
    done: int = 0
    """Steps that are done, of all its pictures."""
    total: int = 0
    """Steps of all its pictures; 0: not known yet."""
    position: int = 0
    """Jobs before it in the queue; 0 where it runs, or is the next."""
    estimate: float | None = None
    """Seconds until it is done, as far as that can be told."""
    note: str = ""
    """What it waits for, where that is not its turn."""
    results: tuple[Result, ...] = ()
    error: str = ""
    code: str = ""
    status: int = 0
    """The HTTP status that the error has."""
    preview: Blob | None = None
    """The last half-finished picture, for who watches."""
    index: int = 0
    """Of which picture."""

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in {"done", "failed", "cancelled"}

    @property
    def percent(self) -> int:
        """0 to 100."""
        return 100 if self.state == "done" else 100 * self.done // self.total if self.total else 0
