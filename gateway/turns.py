"""Who waits for one model, and who is next: first come, first served, and turn about between tenants.

A tenant is whoever sends under one key. One that floods the queue waits behind itself alone: each tenant's oldest goes
in turn, and where the queue is full the one with most in it loses its youngest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum

from backends.base import Model
from canonical.requests import LoadOptions


class Stand(Enum):
    """Where a request stands."""

    WAITS = "waits"
    HOLDS = "holds"
    """It has a slot, and keeps the model where it is."""
    REFUSED = "refused"
    LEFT = "left"
    """Gave up waiting."""
    DONE = "done"


class Turn:
    """One request's wish for a slot of a model, and then its hold on it. Known by identity."""

    __slots__ = ("came", "due", "error", "keep_alive", "model", "options", "place", "serial", "stand", "tenant")

    def __init__(self, options: LoadOptions, keep_alive: float | None, tenant: str) -> None:
        self.options = options
        """How it wants the model loaded."""
        self.keep_alive = keep_alive
        """Seconds the model is to stay afterwards; None: whatever holds."""
        self.tenant = tenant
        self.stand = Stand.WAITS
        self.model: Model
        """Set once it holds a slot."""
        self.error: BaseException | None = None
        """Why it was refused."""
        self.place: object = None
        """The resident that it waits for or holds."""
        self.serial = 0
        """Grows in the order of coming."""
        self.came = 0.0
        self.due = 0.0
        """At which reading of its resident's clock of waiting it is refused."""


class Queue:
    """Turns in the order in which they are served."""

    __slots__ = ("_all", "_tenants")

    def __init__(self) -> None:
        self._all: OrderedDict[Turn, None] = OrderedDict()
        self._tenants: OrderedDict[str, OrderedDict[Turn, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Turn]:
        """In the order of coming."""
        return iter(self._all)

    def __contains__(self, turn: Turn) -> bool:
        return turn in self._all

    def push(self, turn: Turn) -> None:
        """Put a turn behind all others of its tenant."""
        self._all[turn] = None
        self._tenants.setdefault(turn.tenant, OrderedDict())[turn] = None

    @property
    def oldest(self) -> Turn:
        """Who has waited longest; there must be somebody."""
        return next(iter(self._all))

    def pop(self) -> Turn:
        """Take whose turn it is; the next time it is another tenant's."""
        tenant, turns = next(iter(self._tenants.items()))
        turn = next(iter(turns))
        self.remove(turn)
        if turns:
            self._tenants.move_to_end(tenant)
        return turn

    def remove(self, turn: Turn) -> None:
        """Take a turn that is in the queue."""
        del self._all[turn]
        turns = self._tenants[turn.tenant]
        del turns[turn]
        if not turns:
            del self._tenants[turn.tenant]

    def overflow(self) -> Turn:
        """Whom to send away from a queue that is too long: the youngest of the tenant with most turns."""
        turns = max(self._tenants.values(), key=len)
        return next(reversed(turns))
