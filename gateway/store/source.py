"""What a kind of database has to say for itself, so that the store can be kept in it: ``sqlite`` and ``postgres`` do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from canonical.errors import StorageFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Failure(Struct, frozen=True):
    """What went wrong in a database."""

    error: StorageFailed
    """In words for clients."""
    detail: str = ""
    """In its own, for the log; without secrets."""
    lost: bool = False
    """The connection is of no more use."""
    passing: bool = False
    """Nothing was committed, and the next try may succeed."""
    final: bool = False
    """Nothing must be done with this database any more."""


class Alive(Protocol):
    """Which gateways that share the database still run. All verbs may block for a moment."""

    token: str
    """This one's name among them."""

    def show(self) -> None:
        """Be seen to live, from now on."""

    def sees(self, token: str, db: Connection) -> bool:
        """Whether the gateway of ``token`` lives."""

    def hide(self) -> None:
        """The end."""


class Source(Protocol):
    """Where a database is, and its manners."""

    readers: int
    """Threads that read."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def alive(self) -> Alive:
        """Which of them still run."""

    @property
    def exists(self) -> bool:
        """Whether there can be anything to read: looking for it makes nothing."""

    def glance(self, question: str) -> bool | None:
        """Whether a plain SELECT finds anything, at no cost worth speaking of; None: only an opened database could tell."""

    def open(self, *, writes: bool) -> Connection:
        """A connection to the database, in which every table is as the newest version has it."""

    def lock(self, db: Connection) -> str:
        """Keep other writers out until the transaction ends. Its name, if it can be asked for."""

    def committed(self, transaction: str) -> bool:
        """Whether a transaction has ended well whose commit has failed."""

    def failure(self, error: Exception) -> Failure | None:
        """What ``error`` says of the database; None: it has nothing to do with it."""

    def close(self) -> None:
        """Let go of what ``open`` holds beside its connections."""
