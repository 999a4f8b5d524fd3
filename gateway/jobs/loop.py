"""Works on the jobs of the store, in this process: the gateway's loop, and that of ``dragoman worker``. SAQ's worker drives it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import structs

from canonical.errors import StorageFailed
from canonical.painting import Step
from gateway.engine import Engine
from gateway.jobs.files import Files
from gateway.jobs.job import Result
from gateway.jobs.live import Live
from gateway.jobs.rows import order_of
from gateway.jobs.work import Outcome, work
from gateway.settings import Jobs as Settings
from gateway.store.job_row import FileRow, JobRow
from gateway.store.jobs import JobRows

if TYPE_CHECKING:
    from gateway.jobs.store_queue import StoreQueue

LOOK = 0.5
"""Seconds between two looks whether another process has cancelled what runs here."""
SWEEP = 3.0
"""Seconds between two looks for jobs whose runner is dead, and two signs of life of ours."""
NOTE = 0.4
"""Seconds between two notes in a row of how far it is."""
SLACK = 2.5
"""Seconds that a step may take to end when this process does."""
REST = 0.05
"""Seconds between two looks whether what runs at the end is over."""
LONG = 86_400
logger = logging.getLogger("dragoman")


class Loop:
    """Begun with the first job, and ended with its process. ``Spread`` has the same verbs."""

    reachable = True
    """Whether the server can be reached over which workers get jobs: here is none."""
    note = ""
    """What all jobs that wait are waiting for, beside their turn."""

    def __init__(self, engine: Engine, rows: JobRows, files: Files, live: Live, settings: Settings) -> None:
        self._engine = engine
        self._rows = rows
        self._files = files
        self._live = live
        self._settings = settings
        self._queue: StoreQueue | None = None
        self._worker: Any = None
        self._task: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """How many jobs it works on at once."""
        return self._settings.running

    def start(self) -> None:
        """Take jobs from now on; a second call changes nothing."""
        if self._task is not None:
            return
        from saq.worker import Worker

        from gateway.jobs.store_queue import FUNCTION, StoreQueue

        class OurWorker(Worker[Any]):
            SIGNALS = []  # noqa: RUF012  SAQ's; they are the gateway's to take

        logging.getLogger("saq").setLevel(logging.ERROR)
        self._queue = StoreQueue(self._rows, self._files, self._live, tries=self._settings.tries)
        if not self._settings.running:
            self._task = asyncio.create_task(self._sweep(self._queue), name="jobs")
            return
        self._worker = OurWorker(
            self._queue,
            [(FUNCTION, self._paint)],
            concurrency=self._settings.running,
            cancellation_hard_deadline_s=SLACK,
            timers=cast("Any", {"schedule": LONG, "worker_info": LONG, "sweep": SWEEP, "abort": LOOK}),
        )
        self._task = asyncio.create_task(self._worker.start(), name="jobs")

    def wake(self) -> None:
        """There is a job: take it at once."""
        self.start()
        if self._queue is not None:
            self._queue.wake()

    async def abort(self, id: str) -> None:
        """Stop what its row says is to be stopped; a step may take its time."""
        if self._worker is not None and self._queue is not None and id in self._queue.claims:
            await self._worker.abort(0)

    async def stop(self, grace: float = 0) -> None:
        """Take nothing more, finish within ``grace`` what runs, and give the rest back."""
        if self._task is None or self._queue is None:
            return
        if self._worker is not None:
            await self._rest(self._queue, grace)
            await self._worker.stop()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for claim in list(self._queue.claims.values()):
            with contextlib.suppress(StorageFailed):
                await self._queue.give_back(claim)
        self._task = self._queue = self._worker = None

    async def _sweep(self, queue: StoreQueue) -> None:
        """Look after the jobs of workers elsewhere, without taking any."""
        while True:
            await queue.sweep()
            await asyncio.sleep(SWEEP)

    async def _rest(self, queue: StoreQueue, grace: float) -> None:
        """Take nothing more, and give what was taken some time."""
        queue.resting = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while queue.claims and loop.time() < deadline:
            await asyncio.wait(self._worker.tasks, timeout=REST)

    async def _paint(self, context: dict[str, Any]) -> Outcome:
        assert self._queue is not None
        claim = self._queue.claims[context["job"].key]
        return await _Painting(self._rows, self._live, claim).run(self._engine, self._files, self._settings.time)


class _Painting:
    """One job being worked on: what is heard of it goes to those who watch, and to its row."""

    def __init__(self, rows: JobRows, live: Live, claim: JobRow) -> None:
        self._rows = rows
        self._live = live
        self._claim = claim
        self._loop = asyncio.get_running_loop()
        self._order = order_of(claim)
        self._results = self._order.results
        self._begun = 0.0
        self._before = 0
        self._noted = -math.inf

    async def run(self, engine: Engine, files: Files, time: float) -> Outcome:
        return await work(engine, files, self._order, tell=self._tell, keep=self._keep, time=time)

    async def _tell(self, step: Step) -> None:
        job = self._live.get(self._claim.id)
        if job is None:
            return
        done, total = step.index * step.total + step.done, step.total * self._order.request.n
        now = self._loop.time()
        if not self._begun:
            self._begun, self._before = now, done
        pace = (now - self._begun) / (done - self._before) if done > self._before else None
        self._live.put(
            structs.replace(
                job,
                done=done,
                total=total,
                index=step.index,
                preview=step.preview or job.preview,
                estimate=None if pace is None else pace * (total - done),
            )
        )
        if now - self._noted > NOTE:
            self._noted = now
            self._rows.progress(self._claim, done=done, total=total)
        await asyncio.sleep(0)

    async def _keep(self, result: Result) -> None:
        results = (*self._results, result)
        job = self._live.get(self._claim.id)
        done = job.done if job is not None else 0
        kept = await self._rows.picture(
            self._claim,
            results=msgspec.json.encode(results),
            done=done,
            size=result.size,
            file=FileRow(result.name, result.digest),
        )
        if not kept:
            raise StorageFailed("another worker has this job")
        self._results = results
        if (job := self._live.get(self._claim.id)) is not None:  # it may have been given back meanwhile
            self._live.put(structs.replace(job, results=results))
