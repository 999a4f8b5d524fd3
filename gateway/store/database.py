"""A database in threads of its own: work goes in, and is answered once it is durable.

One thread writes, and others read, so that a read never waits for an ``fsync``. Writes that wait together are committed
together, so that many clients cost one. The database is opened at the first use. A damaged one is told of and left as it
is; of other troubles it recovers by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import Struct

from canonical.errors import GatewayError, StorageFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH = 64
"""Pieces of work in one commit at most."""
DAMAGED = "storage_damaged"

T = TypeVar("T")
Work = Callable[["Connection"], T]
logger = logging.getLogger("dragoman")


class Alive(Protocol):
    """Which gateways that share the database still run."""

    token: str
    """This one's name among them."""

    def show(self) -> None:
        """Be seen to live, from now on."""

    def sees(self, token: str, db: Connection | None = None) -> bool:
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

    def open(self, *, writes: bool) -> Connection:
        """A connection, with every table there as the newest version has it."""

    def lock(self, db: Connection) -> None:
        """Keep other writers out until the transaction ends."""

    def lost(self, error: Exception) -> bool:
        """Whether a connection that said so is of no more use."""

    def failure(self, error: Exception) -> StorageFailed | None:
        """What went wrong, in words for clients; None where it is none of the database's."""

    def close(self) -> None:
        """Let go of what ``open`` holds beside its connections."""


class _Job(Struct, frozen=True):
    work: Work[Any]
    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[Any] | None

    def settle(self, result: object) -> None:
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed
                self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: object) -> None:
        assert self.future is not None
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


Jobs = queue.SimpleQueue[_Job | None]


class Database:
    """All that is kept, behind two verbs."""

    def __init__(self, source: Source) -> None:
        self.trouble: StorageFailed | None = None
        """What went wrong last, until a write succeeds."""
        self.alive = source.alive
        self._source = source
        self._writes: Jobs = queue.SimpleQueue()
        self._reads: Jobs = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers: list[threading.Thread] = []
        self._damaged: StorageFailed | None = None

    @property
    def exists(self) -> bool:
        """Whether there can be anything to read: looking for it makes nothing."""
        return self._writer is not None or self._source.exists

    async def read(self, work: Work[T]) -> T:
        """What ``work`` finds. Each of its statements sees what is committed then.

        Raises:
            StorageFailed: the database cannot be opened or read.
        """
        if not self._readers:
            for number in range(self._source.readers):
                thread = threading.Thread(target=self._read, name=f"store reader {number}", daemon=True)
                self._readers.append(thread)
                thread.start()
        return await _asked(self._reads, work)

    async def write(self, work: Work[T]) -> T:
        """What ``work`` returns, once all that it wrote is durable. It may run twice, but is committed once.

        Raises:
            StorageFailed: the database cannot be opened or written.
        """
        self._begin()
        return await _asked(self._writes, work)

    def later(self, work: Work[object]) -> None:
        """Write something that nobody waits for, and that may fail."""
        self._writes.put(_Job(work, None, None))

    async def close(self) -> None:
        """Finish what is asked, and let go of the database. More work would open it again."""
        readers, self._readers = self._readers, []
        for _ in readers:
            self._reads.put(None)
        writer, self._writer = self._writer, None
        for thread in readers:
            await asyncio.to_thread(thread.join)
        if writer is not None:
            self._writes.put(None)
            await asyncio.to_thread(writer.join)
        if writer is not None or readers:
            await asyncio.to_thread(self._let_go)

    def _let_go(self) -> None:
        self._source.close()
        self.alive.hide()

    def _begin(self) -> None:
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="store writer", daemon=True)
            self._writer.start()

    # In the threads

    def _read(self) -> None:
        db: Connection | None = None
        while (job := self._reads.get()) is not None:
            try:
                if db is None:
                    db = self._opened(writes=False)
                result = job.work(db)
            except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's, and the thread goes on
                result = self._told(error)
                if db is not None and self._source.lost(error):
                    _closed(db)
                    db = None
            job.settle(result)
        _closed(db)

    def _write(self) -> None:
        db: Connection | None = None
        ended = False
        while not ended:
            batch: list[_Job] = []
            while not ended and len(batch) < BATCH and not (batch and self._writes.empty()):
                job = self._writes.get()
                if job is None:
                    ended = True
                else:
                    batch.append(job)
            db = self._answer(db, batch)
        _closed(db)

    def _answer(self, db: Connection | None, batch: Sequence[_Job]) -> Connection | None:
        """Do all of ``batch`` in one commit; where that fails, each alone, so that each fails for its own reasons."""
        pieces = [batch, *([job] for job in batch)] if len(batch) > 1 else [batch]
        for number, piece in enumerate(pieces):
            if not piece:
                continue
            try:
                if db is None:
                    db = self._opened(writes=True)
                results = self._commit(db, piece)
            except Exception as error:  # noqa: BLE001
                failed = self._told(error)
                if db is not None and self._source.lost(error):
                    _closed(db)
                    db = None
                if len(piece) > 1:
                    continue
                results = [failed]
            for job, result in zip(piece, results, strict=True):
                job.settle(result)
            if number == 0:
                break
        return db

    def _commit(self, db: Connection, batch: Sequence[_Job]) -> list[object]:
        """The results, durable."""
        results: list[object] = []
        with db.begin():
            self._source.lock(db)
            for job in batch:
                try:
                    results.append(job.work(db))
                except GatewayError as error:
                    results.append(error)
        if self.trouble is not None:
            logger.warning("%s can be written again", self._source.name)
            self.trouble = None
        return results

    def _opened(self, *, writes: bool) -> Connection:
        if self._damaged is not None:
            raise StorageFailed(self._damaged.message, code=self._damaged.code)
        return self._source.open(writes=writes)

    def _told(self, error: Exception) -> Exception:
        """``error`` itself, or what it says of the database in words for clients."""
        failed = self._source.failure(error)
        if failed is None:
            return error
        if failed.code == DAMAGED:  # writing on would make it worse, and hide what could be saved
            self._damaged = failed
        if self.trouble is None:
            logger.error("%s: %s", self._source.name, failed.message)
        self.trouble = failed
        return failed


async def _asked(jobs: Jobs, work: Work[T]) -> T:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    jobs.put(_Job(work, loop, future))
    return await future


def _closed(db: Connection | None) -> None:
    if db is not None:
        with contextlib.suppress(Exception):
            db.invalidate()
        with contextlib.suppress(Exception):
            db.close()
