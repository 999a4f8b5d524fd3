"""SAQ's queue over the store's own table: the same worker code as with Redis, and nothing beside the gateway's database.

Imported when the first job comes: SAQ takes an eighth of a second. What SAQ keeps of a job is made from its row each time; its
retries, timeouts and heartbeats are left alone, since a row knows who works on it and the database who is alive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from msgspec import structs
from saq.job import Job, Status
from saq.queue.base import Queue

from canonical.errors import StorageFailed
from gateway.jobs.files import Files
from gateway.jobs.job import Job as SeenJob
from gateway.jobs.live import Live
from gateway.jobs.rows import ending_of, told
from gateway.jobs.work import Outcome
from gateway.store.job_row import Ending, JobRow
from gateway.store.jobs import JobRows

if TYPE_CHECKING:
    from saq.types import CountKind, QueueInfo, WorkerInfo

FUNCTION = "paint"
POLL = 0.5
"""Seconds between two looks at what other processes have put into the queue."""
AGAIN = 1.0
"""Seconds before a database that failed is tried again."""
PATIENCE = 20.0
"""Seconds for which the end of a job that went well is tried to be stored, before it counts as failed."""
ROUNDS = 20
"""Sweeps between two evictions."""
logger = logging.getLogger("dragoman")

_STATES = {
    "queued": Status.QUEUED,
    "running": Status.ACTIVE,
    "done": Status.COMPLETE,
    "failed": Status.FAILED,
    "cancelled": Status.ABORTED,
}


class StoreQueue(Queue):
    """The jobs of one store, for one worker."""

    def __init__(self, rows: JobRows, files: Files, live: Live, *, tries: int) -> None:
        super().__init__("dragoman", None, None)
        self.claims: dict[str, JobRow] = {}
        """What this process works on, by id."""
        self.resting = False
        """Whether no more is to be taken."""
        self._rows = rows
        self._files = files
        self._live = live
        self._tries = tries
        self._news = asyncio.Event()
        self._round = 0

    def wake(self) -> None:
        """Something may have come: all who wait look at once."""
        told, self._news = self._news, asyncio.Event()
        told.set()

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:  # noqa: ARG002, ASYNC109  SAQ's
        """The next job, claimed."""
        woken = True
        while True:
            news = self._news
            pause = POLL
            try:
                if (
                    not self.resting
                    and (woken or "queued" in await self._rows.counts())
                    and (row := await self._claimed()) is not None
                ):
                    self.claims[row.id] = row
                    self._live.put(told(row))
                    # SAQ counts this attempt itself.
                    return self._job(row, attempts=row.attempt - 1)
            except StorageFailed:
                pause = AGAIN
            try:
                async with asyncio.timeout(pause):
                    await news.wait()
                woken = True
            except TimeoutError:
                woken = False

    async def give_back(self, claim: JobRow) -> None:
        """Let another process have it. Raises StorageFailed."""
        state = await self._rows.give_back(claim)
        self.claims.pop(claim.id, None)
        found = await self._rows.find(claim.id)
        if found is None:
            self._live.forget(claim.id)
        else:
            self._live.drop(told(found))
        if state == "queued":
            self.wake()

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:  # noqa: ARG002  SAQ's
        """Show that our jobs live, and look after those of the dead."""
        try:
            self._rows.beat(list(self.claims.values()))
            swept = await self._rows.sweep(tries=self._tries, working=list(self.claims))
            self._round += 1
            if self._round % ROUNDS == 1:
                await self._files.delete(await self._rows.evict())
        except StorageFailed:
            return []
        if swept.again:
            self.wake()
        return [*swept.again, *swept.over]

    async def job(self, job_key: str) -> Job | None:
        """One of them."""
        return (await self.jobs([job_key]))[0]

    async def jobs(self, job_keys: Iterable[str]) -> list[Job | None]:
        """As their rows are. One whose claim is lost is to be stopped, as one that is cancelled is."""
        keys = list(job_keys)
        try:
            rows = {row.id: row for row in await self._rows.several(keys)}
        except StorageFailed:
            return [None for _ in keys]
        found: list[Job | None] = []
        for key in keys:
            claim = self.claims.get(key)
            row = rows.get(key) or claim
            if row is None:
                found.append(None)
                continue
            lost = claim is not None and (key not in rows or _held(row) != _held(claim))
            stop = lost or (row.state == "running" and row.stopping)
            found.append(self._job(row, status=Status.ABORTING if stop else _STATES[row.state]))
        return found

    async def iter_jobs(
        self,
        statuses: list[Status] = list(Status),  # noqa: B006  SAQ's
        batch_size: int = 100,  # noqa: ARG002
    ) -> AsyncIterator[Job]:
        """Those that are not over."""
        line = await self._rows.line()
        for job in await self.jobs([one.id for one in (*line.running, *line.waiting)]):
            if job is not None and job.status in statuses:
                yield job

    async def count(self, kind: CountKind) -> int:
        """How many wait, run, or either."""
        line = await self._rows.line()
        counts = {"queued": len(line.waiting), "active": len(line.running)}
        return counts[kind] if kind in counts else sum(counts.values())

    async def info(self, jobs: bool = False, offset: int = 0, limit: int = 10) -> QueueInfo:  # noqa: ARG002
        """What SAQ's own pages show."""
        line = await self._rows.line()
        return {
            "workers": {},
            "name": self.name,
            "queued": len(line.waiting),
            "active": len(line.running),
            "scheduled": 0,
            "jobs": [],
        }

    async def abort(self, job: Job, error: str, ttl: float = 5) -> None:  # noqa: ARG002
        """Take it out of the queue, or have it stopped."""
        if (row := await self._rows.find(job.key)) is not None:
            await self._rows.cancel(row.id, owner=row.owner)

    async def disconnect(self) -> None:
        """The database is not ours to close."""

    async def write_worker_info(self, worker_id: str, info: WorkerInfo, ttl: int) -> None:
        """The database knows who is alive."""

    async def _update(self, job: Job, status: Status | None = None, **kwargs: Any) -> None:
        """A claim has said all that SAQ would."""

    async def _enqueue(self, job: Job) -> Job | None:
        """Rows are made by ``JobRows.add``."""
        raise NotImplementedError

    async def _retry(self, job: Job, error: str | None) -> None:  # noqa: ARG002
        """It is the process that ends, and not the job."""
        if (claim := self.claims.get(job.key)) is not None:
            await self.give_back(claim)

    async def _finish(self, job: Job, status: Status, *, result: Any = None, error: str | None = None) -> None:  # noqa: ARG002
        claim = self.claims.get(job.key)
        if claim is None:
            return
        if status == Status.COMPLETE and isinstance(result, Outcome) and result.died:
            await self._again(claim)
            return
        if status == Status.ABORTED:
            ending = Ending(state="cancelled")
        elif isinstance(result, Outcome):
            ending = ending_of(result)
        else:
            ending = Ending(state="failed", error="something went wrong here", code="internal_error", status=500)
        await self._settle(claim, ending)

    async def _settle(self, claim: JobRow, ending: Ending) -> None:
        """Store how it ends. Where that cannot be, who watches hears so, and the row is written as soon as it can be."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        ending = structs.replace(ending, finished=self._rows.clock())
        last = self._live.get(claim.id) or told(claim)
        while True:
            done = last.total if ending.state == "done" else last.done
            try:
                gone = await self._rows.settle(claim, ending, done=done)
                break
            except StorageFailed as error:
                if ending.state == "done" and loop.time() > deadline:
                    code, status = error.code or "", error.status
                    ending = structs.replace(ending, state="failed", error=error.message, code=code, status=status)
                if ending.state != "done":
                    self._live.put(_over(last, ending, last.done))
            await asyncio.sleep(AGAIN)
        self.claims.pop(claim.id, None)
        if gone is None:
            await self._lost(claim)
            return
        self._live.drop(_over(last, ending, done))
        try:
            await self._files.delete(gone)
        except StorageFailed as error:
            logger.warning("%s", error.message)

    async def _again(self, claim: JobRow) -> None:
        """The process that painted it has died: begin it again, as often as may be."""
        while True:
            try:
                await self._rows.again(claim, tries=self._tries)
                break
            except StorageFailed:
                await asyncio.sleep(AGAIN)
        self.claims.pop(claim.id, None)
        await self._lost(claim)
        self.wake()

    async def _lost(self, claim: JobRow) -> None:
        """It is not ours any more: its row says what it is."""
        try:
            found = await self._rows.find(claim.id)
        except StorageFailed:
            found = None
        if found is None:
            self._live.forget(claim.id)
        else:
            self._live.drop(told(found))

    async def _claimed(self) -> JobRow | None:
        """A claim that is made is heard of, or given back."""
        claiming = asyncio.ensure_future(self._rows.claim())
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await asyncio.wait([claiming])
            if not claiming.exception() and (row := claiming.result()) is not None:
                await self._rows.give_back(row)
            raise

    def _job(self, row: JobRow, *, attempts: int | None = None, status: Status | None = None) -> Job:
        return Job(
            function=FUNCTION,
            key=row.id,
            queue=self,
            timeout=0,
            retries=0,
            ttl=0,
            attempts=row.attempt if attempts is None else attempts,
            status=status or _STATES[row.state],
        )


def _held(row: JobRow) -> tuple[str, str, int]:
    return row.state, row.runner, row.attempt


def _over(last: SeenJob, ending: Ending, done: int) -> SeenJob:
    """A job as its row will have it."""
    words = structs.asdict(ending)
    return structs.replace(last, **words, done=done, note="", estimate=None, preview=None, index=0)
