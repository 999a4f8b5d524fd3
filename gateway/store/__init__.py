"""What outlives the process, in one database: responses, sessions, conversations, jobs. Each belongs to the key it came with.

Whoever asks calls a method of ``Responses``, ``Sessions``, ``Conversations`` or ``JobRows``, each in a file of its own. It hands a
function to ``Database``, which calls it with a connection in a thread of the store; the statements that it uses stand in ``sql/``.
A job is a ``job_row``; what those say of it who work on it is in ``claims``, and who is next in ``line``.
``sqlite`` and ``postgres`` are the two kinds of database, ``alive`` tells which gateways on one database still run, ``evicting``
what has to go, and ``earlier`` takes over what versions before the first schema kept.

A new table, say of voices, is

* a ``Table`` in ``sql/tables.py``, with its ``owner`` and what is needed to evict it; texts from outside are ``Words``;
* a step ``migrations/versions/v3.py`` (``revision = "3"``, ``down_revision = "2"``) which makes it, spelled out and without
  ``tables``, as a step must do the same for ever; no step is changed once it was released. ``schema.HEAD`` becomes "3";
* ``sql/voices.py`` with the statements, and ``voices.py`` with the methods: all SQLAlchemy is imported inside the functions that
  run in the store's threads, since it takes half a second that no start should wait for;
* its bounds as a section of ``gateway.settings`` and ``config.yaml``, and a line in ``Store`` below.

``tests/test_store_schema.py`` compares tables and migrations, on both databases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from canonical.durations import seconds
from gateway.settings import Config
from gateway.store.conversations import Conversations, Turn
from gateway.store.database import Database
from gateway.store.jobs import JobRows
from gateway.store.postgres import PostgresServer
from gateway.store.responses import ABANDONED, UNFINISHED, Responses, Row
from gateway.store.sessions import Session, Sessions
from gateway.store.sqlite import FILE, SqliteFile

__all__ = (
    "ABANDONED",
    "FILE",
    "UNFINISHED",
    "Conversations",
    "Database",
    "JobRows",
    "Responses",
    "Row",
    "Session",
    "Sessions",
    "Store",
    "Turn",
)


class Store:
    """All of one gateway's. Nothing is opened before its first use."""

    def __init__(self, config: Config, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        source = PostgresServer(config.database) if config.database else SqliteFile(folder)
        self.database = database = Database(source)
        kept = config.responses
        self.responses = Responses(database, keep=seconds(kept.keep), limit=kept.limit, size=kept.size, clock=clock)
        self.sessions = Sessions(database, keep=seconds(config.sessions.keep), limit=config.sessions.limit, clock=clock)
        said = config.conversations
        self.conversations = Conversations(
            database, keep=seconds(said.keep), limit=said.limit, size=said.size, clock=clock
        )
        made = config.jobs
        self.jobs = JobRows(database, keep=seconds(made.keep), limit=made.limit, size=made.size, clock=clock)

    async def close(self) -> None:
        """Let go of the database. A later call would open it again."""
        await self.database.close()
