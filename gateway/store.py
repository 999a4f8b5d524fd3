"""What outlives the process: responses, each linked to the one before it. SQLite, in a thread of its own.

A write is answered once it is durable. Writes that wait together are committed together, so that many clients cost one
``fsync``. Nothing is opened, made or started before the first use. Whatever is stored belongs to the key it came with.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from canonical.errors import GatewayError, InvalidRequest, NotFound, StorageFailed
from gateway.alive import Alive

FILE = "responses.db"
PATIENCE = 30.0
"""Seconds that a write waits for another gateway's."""
BATCH = 64
"""Writes of one commit at most."""
FRESH = 60.0
"""Seconds in which a second use is not noted."""
PROBE = 64 * 1024
"""Bytes that must find room before a store in trouble is trusted again."""

UNFINISHED = ("queued", "in_progress")
ABANDONED = "abandoned"
"""The status of an answer whose gateway died over it."""

MIGRATIONS = (
    """
    CREATE TABLE responses (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, previous TEXT, status TEXT NOT NULL, runner TEXT NOT NULL,
        used REAL NOT NULL, input BLOB NOT NULL, object BLOB NOT NULL, log BLOB NOT NULL
    );
    CREATE INDEX responses_by_use ON responses (used);
    """,
)
"""Each takes the schema one version further; ``user_version`` counts those that were done."""

_CHAIN = """
WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND owner = :owner
    UNION ALL
    SELECT r.id, r.previous, depth + 1 FROM responses r JOIN chain c ON r.id = c.previous
    WHERE r.owner = :owner AND depth < :limit
)
"""
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

T = TypeVar("T")
logger = logging.getLogger("dragoman")


class Row(Struct, frozen=True, kw_only=True):
    """One response, as it is kept. What its bytes mean is the dialect's business."""

    id: str
    owner: str
    previous: str | None = None
    status: str
    input: bytes
    object: bytes
    log: bytes = b""
    """The frames of its stream, where they are kept."""


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


class Store:
    """The responses of one folder. Rows unused for ``keep`` seconds go (negative: none), and those used longest ago beyond ``limit``."""

    def __init__(self, folder: Path, *, keep: float, limit: int, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._keep = keep
        self._limit = limit
        self._clock = clock
        self._alive = Alive(folder)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._db: sqlite3.Connection | None = None
        self._damaged: StorageFailed | None = None
        self._trouble: StorageFailed | None = None

    async def ready(self) -> None:
        """Raises StorageFailed where something is known to be wrong, and still is."""
        if not self._limit:
            raise StorageFailed("this gateway keeps no responses: `responses.limit` is 0")
        if self._trouble is not None:
            await self._do(self._probe, writes=True)

    async def put(self, row: Row) -> None:
        """Keep ``row``, durably. The rows that it goes on from count as used. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> None:
            runner = ""
            if row.status in UNFINISHED:
                self._alive.show()
                runner = self._alive.token
            now = self._clock()
            db.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.owner, row.previous, row.status, runner, now, row.input, row.object, _packed(row.log)),
            )
            db.execute(
                f"{_CHAIN} UPDATE responses SET used = :now WHERE id IN (SELECT id FROM chain)",  # noqa: S608  constants
                {"id": row.id, "owner": row.owner, "limit": self._limit, "now": now},
            )
            self._evict(db, now)

        await self._do(work, writes=True)

    async def settle(self, id: str, *, status: str, object: bytes, log: bytes = b"") -> bool:
        """Note how an unfinished response ended. False: it is gone, or has ended otherwise. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> bool:
            done = db.execute(
                "UPDATE responses SET status = ?, object = ?, log = ? WHERE id = ? AND status IN (?, ?)",
                (status, object, _packed(log), id, *UNFINISHED),
            )
            return done.rowcount > 0

        return await self._do(work, writes=True)

    async def get(self, id: str, *, owner: str) -> Row | None:
        """One response; None where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> Row | None:
            found = db.execute(
                "SELECT previous, status, input, object, log, runner, used FROM responses WHERE id = ? AND owner = ?",
                (id, owner),
            ).fetchone()
            if found is None:
                return None
            previous, status, input, object, log, runner, used = found
            status = self._true_status(status, runner)
            self._touch(db, id, used)
            log = zlib.decompress(log) if log else b""
            return Row(id=id, owner=owner, previous=previous, status=status, input=input, object=object, log=log)

        return await self._do(work) if self._exists() else None

    async def chain(self, id: str, *, owner: str, limit: int, size: int) -> list[Row]:
        """The response and all that it goes on from, the oldest first. Empty: there is none of this id.

        Raises:
            InvalidRequest: there are more than ``limit`` of them, or they have more than ``size`` bytes.
            NotFound: one in the middle is gone.
            StorageFailed: the store cannot be read.
        """

        def work(db: sqlite3.Connection) -> list[Row]:
            what = {"id": id, "owner": owner, "limit": limit}
            links = db.execute(
                f"{_CHAIN} SELECT r.id, r.previous, r.used, length(r.input) + length(r.object)"  # noqa: S608
                " FROM chain JOIN responses r USING (id) ORDER BY depth",
                what,
            ).fetchall()
            if len(links) > limit:
                raise InvalidRequest(f"a conversation may have at most {limit} responses")
            if sum(link[3] for link in links) > size:
                raise InvalidRequest(f"a conversation may have at most {size} bytes")
            if links and links[-1][1] is not None:
                raise NotFound(f"response {links[-1][1]!r}, which {id!r} goes on from, has been deleted")
            rows = db.execute(
                f"{_CHAIN} SELECT r.id, r.previous, r.status, r.runner, r.input, r.object"  # noqa: S608
                " FROM chain JOIN responses r USING (id) ORDER BY depth DESC",
                what,
            )
            found = [
                Row(
                    id=one,
                    owner=owner,
                    previous=previous,
                    status=self._true_status(status, runner),
                    input=input,
                    object=object,
                )
                for one, previous, status, runner, input, object in rows
            ]
            for link in links:
                self._touch(db, link[0], link[2])
            return found

        return await self._do(work) if self._exists() else []

    async def delete(self, id: str, *, owner: str) -> bool:
        """Forget one response; False where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> bool:
            return db.execute("DELETE FROM responses WHERE id = ? AND owner = ?", (id, owner)).rowcount > 0

        return self._exists() and await self._do(work, writes=True)

    def _exists(self) -> bool:
        """Whether there can be anything to read: looking for it makes no file."""
        return self._thread is not None or (self._folder / FILE).exists()

    async def close(self) -> None:
        """Let go of the file. A later call would open it again."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    # In the thread

    async def _do(self, work: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="store", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, writes, loop, future))
        return await future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch: list[_Job] = [job]
            ending = False
            while len(batch) < BATCH and not self._jobs.empty():
                more = self._jobs.get()
                if more is None:
                    ending = True
                    break
                batch.append(more)
            self._answer(batch)
            if ending:
                break
        if self._db is not None:
            self._db.close()
            self._db = None
        self._alive.hide()

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
            if writes and self._trouble is not None:
                logger.warning("the store of responses works again")
                self._trouble = None
            return results
        finally:
            if self._db is not None and self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")

    def _failed(self, error: Exception) -> StorageFailed:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = self._folder / FILE
        if code in _DAMAGE:
            # Writing on would make it worse, and hide what could be saved.
            failed = StorageFailed(
                f"the store of responses is damaged and is left as it is ({error}); move it away or restore it, and restart",
                code="storage_damaged",
            )
            self._damaged = failed
            if self._db is not None:
                self._db.close()
                self._db = None
        else:
            failed = StorageFailed(f"the response could not be stored: {error}")
        if self._trouble is None:
            logger.error("%s: %s", where, failed.message)
        self._trouble = failed
        return failed

    def _opened(self) -> sqlite3.Connection:
        if self._damaged is not None:
            raise StorageFailed(self._damaged.message, code=self._damaged.code)
        if self._db is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = sqlite3.connect(self._folder / FILE, isolation_level=None, timeout=PATIENCE)
            try:
                _patiently(db, "PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("PRAGMA secure_delete = ON")
                _migrate(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _evict(self, db: sqlite3.Connection, now: float) -> None:
        if self._keep >= 0:
            db.execute("DELETE FROM responses WHERE used < ?", (now - self._keep,))
        (count,) = db.execute("SELECT count(*) FROM responses").fetchone()
        if count > self._limit:
            db.execute(
                "DELETE FROM responses WHERE id IN (SELECT id FROM responses WHERE status NOT IN (?, ?)"
                " ORDER BY used LIMIT ?)",
                (*UNFINISHED, count - self._limit),
            )

    def _true_status(self, status: str, runner: str) -> str:
        return ABANDONED if status in UNFINISHED and not self._alive.sees(runner) else status

    def _touch(self, db: sqlite3.Connection, id: str, used: float) -> None:
        now = self._clock()
        if now - used > FRESH:
            with contextlib.suppress(sqlite3.Error):  # a full disk keeps nobody from reading
                db.execute("UPDATE responses SET used = ? WHERE id = ?", (now, id))

    def _probe(self, db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO responses VALUES ('', '', NULL, '', '', 0, zeroblob(?), x'', x'')", (PROBE,))
        db.execute("DELETE FROM responses WHERE id = ''")


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


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()  # another gateway may have been faster
        if version > len(MIGRATIONS):
            raise StorageFailed("the store of responses was written by a newer dragoman, and is left as it is")
        for step in MIGRATIONS[version:]:
            for statement in filter(str.strip, step.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _packed(log: bytes) -> bytes:
    return zlib.compress(log, 3) if log else b""
