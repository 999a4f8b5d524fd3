"""A worker's half of the queue on Redis: takes a job, works on it, and tells how far it is until that has been heard.

The server may go away at any moment and come back empty: the job goes on, and is told of again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import Any, cast

import msgspec
from saq.job import Job
from saq.worker import Worker

from canonical.painting import Step, check_paint
from gateway.engine import Engine
from gateway.jobs.files import Files
from gateway.jobs.job import Result
from gateway.jobs.over_redis.queue import AGAIN, AWAY, BEAT, FUNCTION, Said, SharedQueue
from gateway.jobs.work import Order, Outcome, work
from gateway.settings import Jobs as Settings

PAUSE = 0.1
"""Seconds at least between two words on how far a job is."""
LOOK = 0.2
"""Seconds between two looks whether a job is to be stopped."""
PATIENCE = 900.0
"""Seconds for which a worker tries to tell how a job ended."""
SLACK = 2.5
"""Seconds that a step may take to end when this process does."""
LONG = 86_400
logger = logging.getLogger("dragoman")


class Painter:
    """Takes jobs from the queue until it is stopped."""

    def __init__(self, engine: Engine, files: Files, settings: Settings) -> None:
        self._engine = engine
        self._files = files
        self._time = settings.time
        self._queue = queue = SharedQueue(settings.queue)

        class OurWorker(Worker[Any]):
            SIGNALS = []  # noqa: RUF012  SAQ's; they are the process's to take

        self._worker = OurWorker(
            queue,
            [(FUNCTION, self._paint)],
            concurrency=settings.running,
            cancellation_hard_deadline_s=SLACK,
            timers=cast(
                "Any", {"schedule": LONG, "worker_info": BEAT, "sweep": LONG, "abort": LOOK}
            ),  # fractions are fine
            metadata={"slots": settings.running},
        )
        self._name = f"{socket.gethostname()[:100]}:{os.getpid()}"
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take jobs from now on."""
        self._task = asyncio.create_task(self._worker.start(), name="jobs")

    async def stop(self, grace: float = 0) -> None:
        """Take nothing more, finish within ``grace`` what runs, and give the rest back."""
        if self._task is None:
            return
        self._queue.closing = True
        await self._queue.leave(self._worker.id)
        deadline = asyncio.get_running_loop().time() + grace
        while self._worker.job_task_contexts and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait([context["task"] for context in self._worker.job_task_contexts.values()], timeout=0.1)
        await self._worker.stop()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._queue.disconnect()

    async def _paint(self, context: dict[str, Any], *, order: str) -> None:
        told = _Telling(self._queue, context["job"], self._name)
        beating = asyncio.create_task(told.beat())
        try:
            found = msgspec.json.decode(order, type=Order)
            check_paint(found.request)  # whoever can write to the server can hand over anything
            outcome = await work(self._engine, self._files, found, tell=told.step, keep=told.keep, time=self._time)
        finally:
            # A word that is still on its way would undo what comes after it.
            told.rest()
            await asyncio.wait([beating])
        await told.end(outcome)


class _Telling:
    """Tells of one job."""

    def __init__(self, queue: SharedQueue, job: Job, worker: str) -> None:
        self._queue = queue
        self._job = job
        self._said = Said(worker=worker)
        self._preview = b""
        self._news = asyncio.Event()
        self._resting = asyncio.Event()

    async def step(self, step: Step) -> None:
        said: dict[str, Any] = {"done": step.done, "total": step.total, "index": step.index}
        if step.preview is not None:
            self._preview = step.preview.data
            said["preview"] = self._said.preview + 1
            said["preview_type"] = step.preview.media_type
        self._said = msgspec.structs.replace(self._said, **said)
        self._news.set()
        await asyncio.sleep(0)

    async def keep(self, result: Result) -> None:
        self._said = msgspec.structs.replace(self._said, results=(*self._said.results, result))
        self._news.set()

    def rest(self) -> None:
        """No more words than the one that is on its way."""
        self._resting.set()
        self._news.set()

    async def beat(self) -> None:
        """Say what is new, and now and then that nothing is."""
        shown = 0
        while not self._resting.is_set():
            self._news.clear()
            pause = PAUSE
            try:
                if self._said.preview != shown:
                    shown = self._said.preview
                    await self._queue.show_preview(self._job.key, self._preview)
                await self._say(self._said)
            except AWAY:
                pause = AGAIN
            await _within(pause, self._resting)
            await _within(BEAT - PAUSE, self._news)

    async def end(self, outcome: Outcome) -> None:
        """Say how it ended, as soon as that can be heard."""
        said = msgspec.structs.replace(self._said, outcome=outcome)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                await self._say(said)
            except AWAY:
                if asyncio.get_running_loop().time() > deadline:
                    logger.warning("the queue's server is away: how job %s ended is not known there", self._job.key)
                    return
                await asyncio.sleep(AGAIN)
            else:
                return

    async def _say(self, said: Said) -> None:
        await self._queue.update(self._job, meta=msgspec.to_builtins(said))


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for it, so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
