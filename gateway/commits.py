"""An SQLite file in a thread of its own: work goes in, and is answered once it is durable.

Writes that wait together are committed together, so that many clients cost one ``fsync``. The file is opened at the first
use. A damaged one is told of and left as it is; of other troubles it recovers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from canonical.errors import GatewayError, StorageFailed

PATIENCE = 30.0
"""Seconds that a write waits for another gateway's."""
BATCH = 64
"""Pieces of work in one commit at most."""
JOURNAL = 64 * 1024 * 1024
"""Bytes of SQLite's journal that stay on disk once they are in the file."""

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

T = TypeVar("T")
logger = logging.getLogger("dragoman")


class _Job(Struct, frozen=True):
    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def settle(self, result: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: object) -> None:
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Commits:
    """One file. ``migrations`` are its schema's versions; ``ending`` is called in the thread before it ends."""

    def __init__(self, file: Path, *, migrations: Sequence[str], ending: Callable[[], None]) -> None:
        self.trouble: StorageFailed | None = None
        """What went wrong last, until a write succeeds."""
        self._file = file
        self._migrations = migrations
        self._ending = ending
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None
        self._damaged: StorageFailed | None = None

    @property
    def exists(self) -> bool:
        """Whether there can be anything to read: looking for it makes no file."""
        return self._thread is not None or self._file.exists()

    async def do(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        """What ``work`` returns, once all that it wrote is durable. It may run twice, but is committed once.

        Raises:
            StorageFailed: the file cannot be opened, read or written.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, writes, loop, future))
        return await future

    async def close(self) -> None:
        """Let go of the file. More work would open it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch: list[_Job] = []
            while not ended and len(batch) < BATCH and not (batch and self._jobs.empty()):
                job = self._jobs.get()
                if job is None:
                    ended = True
                else:
                    batch.append(job)
            self._answer(batch)
        if self._db is not None:
            self._db.close()
            self._db = None
        self._ending()

    def _answer(self, batch: Sequence[_Job]) -> None:
        """Do all of ``batch`` in one commit; where that fails, each alone, so that each fails for its own reasons."""
        if len(batch) > 1 and any(job.writes for job in batch):
            with contextlib.suppress(Exception):
                for job, result in zip(batch, self._commit(batch), strict=True):
                    job.settle(result)
                return
        for job in batch:
            try:
                (result,) = self._commit([job])
            except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's, and the thread goes on
                result = error
            job.settle(result)

    def _commit(self, batch: Sequence[_Job]) -> list[object]:
        """The results, durable. Raises StorageFailed where nothing was written."""
        writes = any(job.writes for job in batch)
        try:
            db = self._opened()
            if writes:
                db.execute("BEGIN IMMEDIATE")
            results: list[object] = []
            for job in batch:
                try:
                    results.append(job.work(db))
                except GatewayError as error:
                    results.append(error)
            if writes:
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error
        else:
            if writes and self.trouble is not None:
                logger.warning("%s can be written again", self._file)
                self.trouble = None
            return results
        finally:
            if self._db is not None and self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    def _failed(self, error: Exception) -> StorageFailed:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGE:
            # Writing on would make it worse, and hide what could be saved.
            failed = StorageFailed(
                f"the store is damaged and is left as it is ({error}); move it away or restore it, and restart",
                code="storage_damaged",
            )
            self._damaged = failed
            if self._db is not None:
                self._db.close()
                self._db = None
        else:
            # Clients read this: the text of an OSError has the path in it.
            why = error.strerror if isinstance(error, OSError) else error
            failed = StorageFailed(f"this cannot be stored: {why}")
        if self.trouble is None:
            logger.error("%s: %s", self._file, failed.message)
        self.trouble = failed
        return failed

    def _opened(self) -> sqlite3.Connection:
        if self._damaged is not None:
            raise StorageFailed(self._damaged.message, code=self._damaged.code)
        if self._db is None:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = sqlite3.connect(self._file, isolation_level=None, timeout=PATIENCE)
            try:
                _patiently(db, "PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
                db.execute(f"PRAGMA journal_size_limit = {JOURNAL}")
                _migrate(db, self._migrations)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db


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


def _migrate(db: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Take the schema to its last version; ``user_version`` counts the steps that were done."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == len(migrations):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()  # another gateway may have been faster
        if version > len(migrations):
            raise StorageFailed("the store was written by a newer dragoman, and is left as it is")
        for step in migrations[version:]:
            for statement in filter(str.strip, step.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
