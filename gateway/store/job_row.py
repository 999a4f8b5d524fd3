"""One job, as it is kept."""

from __future__ import annotations

from msgspec import Struct


class JobRow(Struct, frozen=True, kw_only=True):
    """One job, as it is kept. What its bytes mean is the business of ``gateway.jobs``."""

    id: str
    owner: str
    state: str = "queued"
    priority: int = 0
    dialect: str = ""
    model: str = ""
    cost: float = 0
    created: float = 0
    started: float = 0
    finished: float = 0
    done: int = 0
    total: int = 0
    attempt: int = 0
    """How often it was begun."""
    runner: str = ""
    """Who works on it."""
    beat: float = 0
    """The runner's last sign of life."""
    waiter: str = ""
    """The gateway whose client waits for it: where that one ends, the job does."""
    stopping: bool = False
    """Its runner is asked to stop."""
    error: str = ""
    code: str = ""
    status: int = 0
    request: bytes
    inputs: bytes = b"{}"
    results: bytes = b"[]"

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in {"done", "failed", "cancelled"}


class FileRow(Struct, frozen=True):
    """A file of a job; ``input``: the job begins with it."""

    name: str
    digest: str
    input: bool = False


class Ending(Struct, frozen=True, kw_only=True):
    """How a job ends."""

    state: str
    error: str = ""
    code: str = ""
    status: int = 0
    finished: float = 0
    """When; 0: now."""
