"""A job as it is told. Whoever has jobs has them in a form that fits; times are seconds since 1970, 0: not yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from adapters.images import wire
from canonical.painting import Paint

State = Literal["queued", "running", "done", "failed", "cancelled"]
STATES: dict[State, wire.Celery] = {
    "queued": "PENDING",
    "running": "PROGRESS",
    "done": "SUCCESS",
    "failed": "FAILURE",
    "cancelled": "REVOKED",
}
STATUSES: dict[State, wire.Status] = {
    "queued": "queued",
    "running": "processing",
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Made(Protocol):
    """A finished picture."""

    @property
    def name(self) -> str:
        """Of its file."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def made(self) -> Paint:
        """What it was made from."""

    @property
    def warnings(self) -> Sequence[str]:
        """What could not be wholly done."""


class Seen(Protocol):
    """A job at a moment."""

    @property
    def id(self) -> str:
        """A UUID."""

    @property
    def state(self) -> State:
        """How it is."""

    @property
    def request(self) -> Paint:
        """Complete."""

    @property
    def created(self) -> float:
        """When it came."""

    @property
    def started(self) -> float:
        """When it was begun."""

    @property
    def finished(self) -> float:
        """When it was over."""

    @property
    def done(self) -> int:
        """Steps, of all its pictures."""

    @property
    def total(self) -> int:
        """How many there are."""

    @property
    def percent(self) -> int:
        """0 to 100."""

    @property
    def position(self) -> int:
        """Jobs before it."""

    @property
    def estimate(self) -> float | None:
        """Seconds until it is done."""

    @property
    def note(self) -> str:
        """What it waits for."""

    @property
    def error(self) -> str:
        """Why it failed; empty: it has not."""

    @property
    def results(self) -> Sequence[Made]:
        """The pictures that there are."""
