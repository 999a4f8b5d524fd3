"""Answers that nobody waits for: each is made in a task of its own, and its stream can be followed from any event on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from adapters.responses.replay import frames_of
from adapters.responses.stream import ResponseStream
from canonical.errors import BackendUnavailable, Busy, GatewayError, InvalidRequest, StorageFailed
from canonical.report import Report
from canonical.requests import Generate
from gateway.accesslog import AccessLog
from gateway.engine import Engine
from gateway.store import Row, Store

T = TypeVar("T")

LOG = 8 * 1024 * 1024
"""Bytes of frames of one answer that can be followed; of a longer one the first are forgotten."""


class Job:
    """One answer in the making."""

    def __init__(self, answer: ResponseStream, owner: str) -> None:
        self.answer = answer
        self.owner = owner
        self.report: Report | None = None
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        self._frames: list[bytes] = []
        self._forgotten = 0
        self._size = 0
        self._ended = False
        self._followers: set[asyncio.Event] = set()

    def add(self, frames: bytes, *, last: bool = False) -> None:
        """Note more frames, and wake who follows."""
        for frame in frames_of(frames):
            self._frames.append(frame)
            self._size += len(frame)
        if self._size > LOG:
            half = len(self._frames) // 2
            self._size -= sum(map(len, self._frames[:half]))
            del self._frames[:half]
            self._forgotten += half
        self._ended = last
        for follower in self._followers:
            follower.set()

    def log(self, last: bytes) -> bytes:
        """Every frame and the ``last``; empty where some are forgotten."""
        return b"" if self._forgotten else b"".join(self._frames) + last

    def learn(self, report: Report) -> None:
        """Take note of what becomes of the request's fields."""
        self.report = report

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """The frames behind number ``after``, those that are still to come included.

        Raises:
            InvalidRequest: the first of them are forgotten.
        """
        news = asyncio.Event()
        self._followers.add(news)
        try:
            place = after + 1
            while True:
                if place < self._forgotten:
                    raise InvalidRequest(f"events before {self._forgotten} are no longer kept", param="starting_after")
                news.clear()
                ended = self._ended
                found = self._frames[place - self._forgotten :]
                if found:
                    place += len(found)
                    yield b"".join(found)
                elif ended:
                    return
                else:
                    await news.wait()
        finally:
            self._followers.discard(news)

    async def cancel(self) -> None:
        """Call it off, and wait until that is stored."""
        assert self.task is not None
        self.cancelled = True
        self.task.cancel()
        await asyncio.wait([self.task])


class Jobs:
    """All of one gateway's."""

    def __init__(self, engine: Engine, store: Store, *, limit: int, log: AccessLog) -> None:
        self.store = store
        self._engine = engine
        self._limit = limit
        self._log = log
        self._jobs: dict[str, Job] = {}
        self._beginning = 0
        """Those that are being stored."""

    def check_room(self) -> None:
        """Raises Busy when as many run as may."""
        if len(self._jobs) + self._beginning >= self._limit:
            raise Busy("too many responses are being made in the background", retry_after=5)

    async def start(
        self, row: Row, answer: ResponseStream, request: Generate, *, strict: bool, running: set[asyncio.Task[Any]]
    ) -> Job:
        """Store the response as it begins, and begin. A drain waits for the tasks in ``running``.

        Raises:
            Busy: see ``check_room``.
            StorageFailed: then nothing is begun.
        """
        self.check_room()
        self._beginning += 1
        try:
            await self.store.put(row)
        finally:
            self._beginning -= 1
        job = Job(answer, row.owner)
        job.add(answer.queue())
        self._jobs[answer.id] = job
        job.task = task = asyncio.ensure_future(self._make(job, request, strict=strict))
        running.add(task)

        def ended(_: object) -> None:
            running.discard(task)
            self._jobs.pop(answer.id, None)

        task.add_done_callback(ended)
        await asyncio.sleep(0)  # a task that is called off before its first step would tell nobody
        return job

    def get(self, id: str, *, owner: str) -> Job | None:
        """A job that runs."""
        job = self._jobs.get(id)
        return job if job is not None and job.owner == owner else None

    async def _make(self, job: Job, request: Generate, *, strict: bool) -> None:
        answer = job.answer
        try:
            stream = self._engine.generate(request, strict=strict, tell=job.learn)
            try:
                async for batch in stream:
                    job.add(b"".join([answer.feed(event) for event in batch]))
            finally:
                await stream.aclose()
            last = answer.finish()
        except GatewayError as error:
            last = answer.fail(error)
        except asyncio.CancelledError:
            closing = BackendUnavailable("the gateway is shutting down")
            last = answer.cancel() if job.cancelled else answer.fail(closing)
        except Exception as error:  # noqa: BLE001  the last resort: it is logged whole, and the client is told little
            self._log.crash(error)
            last = answer.fail(GatewayError("internal error"))
        try:
            await _surely(self.store.settle(answer.id, status=answer.status, object=answer.body(), log=job.log(last)))
        except StorageFailed as error:
            last = answer.fail(error)
        job.add(last, last=True)
        self._log.line(f"background {answer.id} {request.model[:100]} {answer.status} {answer.tokens} tokens")


async def _surely(work: Coroutine[Any, Any, T]) -> T:
    """Finish ``work``, which is short, even where its task is called off meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
