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
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from canonical.errors import GatewayError, StorageFailed
from gateway.store.source import Failure, Source

if TYPE_CHECKING:
    from sqlalchemy import Connection

BATCH = 64
"""Pieces of work in one commit at most."""
PATIENCE = 20.0
"""Seconds that a read may take: a server that has stopped, or is cut off, says nothing; the system notices most of it in 15."""
TRIES = 3
"""How often work is begun that another gateway, or a connection that is gone, has kept from its end."""

T = TypeVar("T")
Work = Callable[["Connection"], T]
logger = logging.getLogger("dragoman")


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


_Jobs = queue.SimpleQueue[_Job | None]


class Database:
    """All that is kept, behind two verbs."""

    def __init__(self, source: Source) -> None:
        self.trouble: StorageFailed | None = None
        """What went wrong last, until a write succeeds."""
        self.alive = source.alive
        self._source = source
        self._final: StorageFailed | None = None
        self._writes: _Jobs = queue.SimpleQueue()
        self._reads: _Jobs = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers: list[threading.Thread] = []
        self._starting = threading.Lock()

    @property
    def exists(self) -> bool:
        """Whether there can be anything to read: looking for it makes nothing."""
        return self._writer is not None or self._source.exists

    async def glance(self, question: str) -> bool | None:
        """Whether a plain SELECT finds anything, without opening the database; None: that cannot be told so."""
        if not self.exists:
            return False
        return None if self._writer is not None else await asyncio.to_thread(self._source.glance, question)

    async def read(self, work: Work[T]) -> T:
        """What ``work`` finds; each of its statements sees what is committed then. It may run twice.

        Raises:
            StorageFailed: the database cannot be opened or read, or does not answer.
        """
        if not self._readers:
            for number in range(self._source.readers):
                name = f"store reader {number}"
                thread = threading.Thread(target=self._read, args=(self._reads,), name=name, daemon=True)
                self._readers.append(thread)
                thread.start()
        try:
            async with asyncio.timeout(PATIENCE):
                return await _asked(self._reads, work)
        except TimeoutError as error:
            raise StorageFailed("the database does not answer") from error

    async def write(self, work: Work[T]) -> T:
        """What ``work`` returns, once all that it wrote is durable. It may run twice, but is committed once.

        Raises:
            StorageFailed: the database cannot be opened or written.
        """
        return await _asked(self._begin(), work)

    def later(self, work: Work[object]) -> None:
        """Write something that nobody waits for, and that may fail."""
        self._begin().put(_Job(work, None, None))

    async def close(self) -> None:
        """Finish what is asked, and let go of the database. More work would open it again."""
        # Who comes from now on has threads and lines of his own: these end for sure.
        readers, self._readers = self._readers, []
        reads, self._reads = self._reads, queue.SimpleQueue()
        for _ in readers:
            reads.put(None)
        for thread in readers:
            await asyncio.to_thread(thread.join)
        with self._starting:
            writer, self._writer = self._writer, None
            writes, self._writes = self._writes, queue.SimpleQueue()
        if writer is not None:
            writes.put(None)
            await asyncio.to_thread(writer.join)
        if writer is not None or readers:
            await asyncio.to_thread(self._let_go)

    def _begin(self) -> _Jobs:
        """Where to put work for the thread that writes."""
        with self._starting:
            if self._writer is None:
                jobs = self._writes
                self._writer = threading.Thread(target=self._write, args=(jobs,), name="store writer", daemon=True)
                self._writer.start()
            return self._writes

    def _let_go(self) -> None:
        self._source.close()
        self.alive.hide()

    # In the threads

    def _read(self, jobs: _Jobs) -> None:
        line = _Line(self, self._source, writes=False)
        while (job := jobs.get()) is not None:
            if job.future is not None and job.future.done():
                continue  # nobody waits for it any more
            try:
                result = line.run(job.work)
            except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's, and the thread goes on
                result = error
            job.settle(result)
        line.close()

    def _write(self, jobs: _Jobs) -> None:
        line = _Line(self, self._source, writes=True)
        ended = False
        while not ended:
            batch: list[_Job] = []
            while not ended and len(batch) < BATCH and not (batch and jobs.empty()):
                job = jobs.get()
                if job is None:
                    ended = True
                else:
                    batch.append(job)
            if batch:
                self._answer(line, batch)
        line.close()

    def _answer(self, line: _Line, batch: Sequence[_Job]) -> None:
        """Do all of ``batch`` in one commit; where that fails, each alone, so that each fails for its own reasons."""
        try:
            results = line.commit([job.work for job in batch])
        except Exception as error:  # noqa: BLE001
            if len(batch) > 1 and not line.down:
                for job in batch:
                    self._answer(line, [job])
                return
            results = [error] * len(batch)
        for job, result in zip(batch, results, strict=True):
            job.settle(result)

    def opened(self, *, writes: bool) -> Connection:
        """A connection. Raises StorageFailed where nothing must be done any more."""
        if self._final is not None:
            raise StorageFailed(self._final.message, code=self._final.code)
        return self._source.open(writes=writes)

    def note(self, failure: Failure) -> None:
        """Remember what is wrong."""
        if failure.final:
            self._final = failure.error
        if self.trouble is None:
            logger.error("%s: %s (%s)", self._source.name, failure.error.message, failure.detail)
        self.trouble = failure.error

    def note_written(self) -> None:
        """All is well."""
        if self.trouble is not None:
            logger.warning("%s can be written again", self._source.name)
            self.trouble = None


class _Line:
    """One thread's connection, which comes back where it was lost."""

    def __init__(self, database: Database, source: Source, *, writes: bool) -> None:
        self.down = False
        """Whether the last try had no connection at its end."""
        self._database = database
        self._source = source
        self._writes = writes
        self._db: Connection | None = None

    def run(self, work: Work[T]) -> T:
        """What ``work`` returns. Raises StorageFailed for what is the database's fault."""
        for left in reversed(range(TRIES)):
            fresh = self._db is None
            try:
                if self._db is None:
                    self._db = self._database.opened(writes=self._writes)
                result = work(self._db)
            except Exception as error:
                failure = self._source.failure(error)
                if failure is None:
                    raise
                if failure.lost or failure.final:
                    self.close()
                if left and (failure.passing and not (failure.lost and fresh)):
                    continue
                self.down = failure.lost
                self._database.note(failure)
                raise failure.error from error
            self.down = False
            return result
        raise AssertionError

    def commit(self, works: Sequence[Work[Any]]) -> list[object]:
        """The results of all, durable."""

        def together(db: Connection) -> list[object]:
            results: list[object] = []
            with db.begin() as transaction:
                name = self._source.lock(db)
                for work in works:
                    try:
                        results.append(work(db))
                    except GatewayError as error:
                        results.append(error)
                try:
                    transaction.commit()
                except Exception:
                    self.close()  # whatever its commit came to, this connection would begin no other
                    if not self._source.committed(name):
                        raise
            return results

        results = self.run(together)
        self._database.note_written()
        return results

    def close(self) -> None:
        """Let go of the connection."""
        if self._db is not None:
            with contextlib.suppress(Exception):
                self._db.invalidate()
            with contextlib.suppress(Exception):
                self._db.close()
            self._db = None


async def _asked(jobs: _Jobs, work: Work[T]) -> T:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    jobs.put(_Job(work, loop, future))
    return await future
