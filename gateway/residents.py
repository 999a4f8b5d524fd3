"""What the schedule knows of one model, what it may be told to do with it, and the rules for all."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Literal

from msgspec import Struct

from backends.base import Model, Need
from canonical.loading import suffices
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.room import Budget
from gateway.turns import Queue, Turn

Key = tuple[str, str]
"""Backend's name, model's name there."""

_KNOWN = 64
"""Options that a loaded model remembers to do for."""


class Terms(Struct, frozen=True, kw_only=True):
    """How one model is kept."""

    keep_alive: float = 300.0
    """Seconds without a request after which it is closed; negative: never."""
    pinned: bool = False
    """It is never closed for want of room or of requests."""
    exclusive: bool = False
    """No other model of this machine is in memory beside it."""
    load: LoadOptions = AS_CONFIGURED
    """How it is loaded, unless a request wants more."""
    options: Literal["honour", "refuse", "ignore"] = "honour"
    """What becomes of a request that wants it loaded differently."""
    local: bool = True
    """It takes memory of this machine."""


class Rules(Struct, frozen=True, kw_only=True):
    """What holds for all models. Seconds."""

    waiting: int = 512
    """Requests that may wait for one model."""
    waiting_time: float = 60.0
    """How long each waits for others to end; loads take the time they take."""
    switch_after: float = 10.0
    """How long requests for a loaded model may hold back those that wait for another."""
    linger: float = 0.2
    """How long an idle model is kept from others who want its room, at least: its client may just be about to go on."""
    abandoned: float = 5.0
    """How long a load goes on that nobody waits for: some clients lose patience and ask again at once."""
    budget: Budget = Budget()


class Phase(Enum):
    """Where a resident is in its life."""

    WEIGHING = "weighing"
    IN_LINE = "in line"
    LOADING = "loading"
    READY = "ready"
    CLOSING = "closing"
    ABORTING = "aborting"
    GONE = "gone"


_PATIENT = frozenset({Phase.IN_LINE, Phase.READY})
"""Phases in which who waits does so for others to end."""


class Resident:
    """A model from the first who wants it to its end, who uses it and who waits for it."""

    __slots__ = (
        "abandoned", "alone", "dismissed", "draining", "exclusive", "expiry", "holds", "keep_alive", "key", "leaving", "linger", "model",
        "need", "options", "others", "phase", "progress", "queue", "retired", "running", "since", "slots", "source", "suited", "terms",
        "tight", "used_at", "waited",
    )  # fmt: skip

    def __init__(self, key: Key, terms: Terms, source: object, now: float) -> None:
        self.key = key
        self.terms = terms
        self.source = source
        """Whatever the pool loads it from."""
        self.exclusive = terms.exclusive
        self.phase = Phase.WEIGHING
        self.since = now
        """When it entered this phase."""
        self.waited = 0.0
        """Its clock of waiting: seconds of all phases before in which others were waited for."""
        self.options = AS_CONFIGURED
        """How it is loaded, or is to be."""
        self.need = Need()
        self.holds = False
        """It takes memory, or may still."""
        self.model: Model | None = None
        """Set while it is ready."""
        self.slots = 0
        self.running = 0
        """Requests that hold it."""
        self.queue = Queue()
        self.others = Queue()
        """Those that wait for it to be loaded with other options."""
        self.keep_alive = terms.keep_alive
        """Seconds it stays now: the last that a request wished."""
        self.expiry: float | None = None
        """When it is closed, while idle."""
        self.used_at = now
        """When the last request or the load ended."""
        self.progress: Progress | None = None
        """How far its load is."""
        self.draining = False
        """It gets no more requests: others want its room."""
        self.leaving = False
        """It gets no more requests, and goes with those that it has: somebody waits for that."""
        self.retired = False
        """Its files are gone or replaced: it ends with the requests that it has."""
        self.linger = 0.0
        """Seconds that it is kept idle from others who want its room: longer where it was sent away too early before."""
        self.alone = False
        """What all who wait want together is too much: they are tried one by one."""
        self.tight = False
        """A load found too little memory although there should have been enough: the next is tried with all idle ones gone."""
        self.abandoned: float | None = None
        """Since when nobody waits for its load."""
        self.dismissed = False
        """It goes with its last request although it is pinned: somebody said so."""
        self.suited: set[LoadOptions] = set()

    def __repr__(self) -> str:
        return f"<{'/'.join(self.key)} {self.phase.value} {self.running}+{len(self.queue)}+{len(self.others)}>"

    def enter(self, phase: Phase, now: float) -> None:
        """Change the phase; the clock of waiting stands still where nobody else is waited for."""
        if self.phase in _PATIENT:
            self.waited += now - self.since
        self.phase, self.since = phase, now

    def clock(self, now: float) -> float:
        """The reading of its clock of waiting."""
        return self.waited + (now - self.since if self.phase in _PATIENT else 0.0)

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return len(self.queue) + len(self.others)

    def turns(self) -> Iterator[Turn]:
        """All who wait."""
        yield from self.queue
        yield from self.others

    @property
    def free(self) -> bool:
        """Whether a slot is free, if it is ready."""
        return not self.slots or self.running < self.slots

    def does_for(self, options: LoadOptions) -> bool:
        """Whether it serves a request of these options as it is loaded."""
        if options == AS_CONFIGURED or options in self.suited:
            return True
        if self.model is None:
            return False
        loaded = self.model.honours.load
        if loaded is None or suffices(options, loaded, self.options):
            if len(self.suited) < _KNOWN:
                self.suited.add(options)
            return True
        return False


class Order(Struct, frozen=True):
    """Something to be done, and reported when it has ended."""

    resident: Resident


class Weigh(Order, frozen=True):
    """Find out what it would take: ``weighed`` or ``failed``."""


class Open(Order, frozen=True):
    """Load it: ``loaded`` or ``failed``."""


class Abort(Order, frozen=True):
    """Stop weighing or loading it: ``failed`` when that has ended, or ``loaded`` if it was too late."""


class Close(Order, frozen=True):
    """Free what ``model`` holds: ``closed``."""

    model: Model


class Wake(Struct, frozen=True):
    """Tell somebody who waits that it holds a slot, or is refused."""

    turn: Turn
