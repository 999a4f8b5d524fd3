"""What outlives the process, in one database: responses, sessions, conversations. Each belongs to the key it came with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from canonical.durations import seconds
from gateway.settings import Config
from gateway.store.conversations import Conversations, Turn
from gateway.store.database import Database
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

    async def close(self) -> None:
        """Let go of the database. A later call would open it again."""
        await self.database.close()
