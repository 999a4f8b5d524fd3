"""The store in one file: SQLite's."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canonical.errors import StorageFailed
from gateway.store.alive import Files
from gateway.store.source import Failure

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

FILE = "dragoman.db"
EARLIER = "responses.db"
PATIENCE = 30.0
"""Seconds that a write waits for another gateway's."""
JOURNAL = 64 * 1024 * 1024
"""Bytes of SQLite's journal that stay on disk once they are in the file."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk fails",
    sqlite3.SQLITE_BUSY: "another gateway holds the store",
    sqlite3.SQLITE_LOCKED: "another gateway holds the store",
    sqlite3.SQLITE_READONLY: "the store may only be read",
    sqlite3.SQLITE_PERM: "the store may not be used",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened",
    sqlite3.SQLITE_TOOBIG: "it is too long",
}
logger = logging.getLogger("dragoman")


class SqliteFile:
    """The file of one folder."""

    readers = 2

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / FILE
        self.name = str(self._file)
        self.alive = Files(folder)
        self._lock = threading.Lock()
        self._engines: tuple[Engine, Engine] | None = None
        self._glanced: tuple[object, bool] | None = None
        """What was asked last, of which state of the file; and what was found."""

    @property
    def exists(self) -> bool:
        """Whether there is a file, of this version or of an earlier one."""
        return self._file.exists() or (self._folder / EARLIER).exists()

    def glance(self, question: str) -> bool | None:
        """Without SQLAlchemy, which no start should wait for; of a file of an earlier version nothing is said.

        Who asks again of a file that nobody has opened since does not have it opened, which makes two files each time.
        """
        try:
            found = self._file.stat()
            now = (question, found.st_mtime_ns, found.st_size)
            if (
                self._glanced is not None
                and self._glanced[0] == now
                and not self._file.with_name(f"{FILE}-wal").exists()
            ):
                return self._glanced[1]
            opened = sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)
            with contextlib.closing(opened) as db:
                there = db.execute(question).fetchone() is not None
        except (sqlite3.Error, OSError):
            return None
        self._glanced = now, there
        return there

    def open(self, *, writes: bool) -> Connection:
        """A connection."""
        with self._lock:
            if self._engines is None:
                self._engines = self._made()
        return self._engines[writes].connect()

    def lock(self, db: Connection) -> str:  # noqa: ARG002
        """Every transaction of a writer begins so."""
        return ""

    def committed(self, transaction: str) -> bool:  # noqa: ARG002
        """A commit that fails is none."""
        return False

    def failure(self, error: Exception) -> Failure | None:
        """What SQLite or the system says, in our words."""
        if isinstance(error, StorageFailed):
            return Failure(error)
        original = getattr(error, "orig", error)
        if isinstance(original, sqlite3.Error):
            code = (getattr(original, "sqlite_errorcode", None) or 0) & 0xFF
            if code in _DAMAGE:
                words = "the store is damaged and is left as it is; move it away or restore it, and restart"
                return Failure(StorageFailed(words, code="storage_damaged"), str(original), final=True)
            words = f"this cannot be stored: {_WORDS.get(code, 'the store fails')}"
            return Failure(StorageFailed(words), str(original))
        if isinstance(original, OSError):
            return Failure(StorageFailed(f"this cannot be stored: {original.strerror}"), str(original))
        return None

    def close(self) -> None:
        """Nothing is held."""
        self._engines = None

    def _made(self) -> tuple[Engine, Engine]:
        """How to read and how to write."""
        from sqlalchemy import NullPool, create_engine, event

        from gateway.store import earlier, schema

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

        def connected(db: sqlite3.Connection, _: Any) -> None:
            db.isolation_level = None  # transactions begin and end when SQLAlchemy says so, and not sooner
            _patiently(db, "PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = ON")
            db.execute(f"PRAGMA journal_size_limit = {JOURNAL}")

        def begun(db: Connection) -> None:
            db.exec_driver_sql("BEGIN IMMEDIATE")

        def engine() -> Engine:
            made = create_engine(
                "sqlite://",
                creator=lambda: sqlite3.connect(self._file, timeout=PATIENCE, check_same_thread=False),
                poolclass=NullPool,
            )
            event.listen(made, "connect", connected)
            return made

        reading, writing = engine(), engine()
        event.listen(writing, "begin", begun)
        with writing.connect() as db:
            old = self._folder / EARLIER
            with db.begin():
                if schema.version(db) != schema.HEAD:
                    schema.upgrade(db)
                if taken := old.exists():
                    earlier.take_over(old, db)
            if taken:
                earlier.set_aside(old)
        return reading, writing


def _patiently(db: sqlite3.Connection, statement: str) -> None:
    """Execute what SQLite refuses at once, for all its own patience, while another gateway opens the file."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
