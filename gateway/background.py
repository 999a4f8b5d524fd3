"""Answers that nobody waits for: each is made in a task of its own, and its stream can be followed from any event on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from itertools import islice
from typing import Any, TypeVar

from msgspec import structs

from adapters.responses.replay import frames_of
from adapters.responses.stream import ResponseStream, error_frame
from canonical.errors import BackendUnavailable, Busy, GatewayError, InvalidRequest, StorageFailed
from canonical.media import Blob
from canonical.messages import Image
from canonical.report import Report
from canonical.requests import Generate
from gateway.accesslog import AccessLog
from gateway.engine import Engine
from gateway.store import Responses, Row

T = TypeVar("T")

LOG = 8 * 1024 * 1024
"""Bytes of frames of one answer that can be followed; of a longer one the first are forgotten."""
PIECE = 64 * 1024
"""Bytes of frames that a follower gets at once: one that stops reading holds no more."""
ROOM = 256 * 1024 * 1024
"""Bytes of all requests that are being answered in the background: nobody waits for them, so many cost their sender nothing."""


class Job:
    """One answer in the making."""

    def __init__(self, answer: ResponseStream, owner: str, size: int) -> None:
        self.answer = answer
        self.owner = owner
        self.size = size
        """Bytes of its request, with all that it goes on from."""
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

        A follower who reads so slowly that some are forgotten before they went out is told so, and that is its end.

        Raises:
            InvalidRequest: the first of them are forgotten.
        """
        news = asyncio.Event()
        self._followers.add(news)
        try:
            place = first = after + 1
            last = False
            while True:
                if place < self._forgotten:
                    lost = InvalidRequest(f"events before {self._forgotten} are no longer kept", param="starting_after")
                    if place == first:
                        raise lost
                    yield error_frame(lost, place)
                    return
                news.clear()
                ended = self._ended
                found: list[bytes] = []
                size = 0
                for frame in islice(self._frames, place - self._forgotten, None):
                    found.append(frame)
                    size += len(frame)
                    if size >= PIECE:
                        break
                if found:
                    place += len(found)
                    yield b"".join(found)
                elif ended:
                    return
                else:
                    last = await self._wait(news, last=last)
        finally:
            self._followers.discard(news)

    async def _wait(self, news: asyncio.Event, *, last: bool) -> bool:
        """Wait for more frames. True: the follower has been called off, and waits on for the ``last`` ones alone.

        The end of the gateway calls off followers and answer alike, and the answer's own end is a moment away.
        """
        try:
            await news.wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if last or task is None or self.task is None or not self.task.cancelling():
                raise
            task.uncancel()
            return True
        return last

    async def cancel(self) -> None:
        """Call it off, and wait until that is stored."""
        assert self.task is not None
        self.cancelled = True
        self.task.cancel()
        await asyncio.wait([self.task])


class Jobs:
    """All of one gateway's."""

    def __init__(self, engine: Engine, store: Responses, *, limit: int, log: AccessLog) -> None:
        self.store = store
        self._engine = engine
        self._limit = limit
        self._log = log
        self._jobs: dict[str, Job] = {}
        """Those that are being stored included."""
        self._size = 0
        """Bytes of their requests."""

    def check_room(self, size: int = 0) -> None:
        """Raises Busy when as many run as may, or when ``size`` more bytes of requests were too many."""
        if len(self._jobs) >= self._limit or (self._jobs and self._size + size > ROOM):
            raise Busy("too many responses are being made in the background", retry_after=5)

    async def start(
        self, row: Row, answer: ResponseStream, request: Generate, *, strict: bool, running: set[asyncio.Task[Any]]
    ) -> Job:
        """Store the response as it begins, and begin. A drain waits for the tasks in ``running``.

        Raises:
            Busy: see ``check_room``.
            StorageFailed: then nothing is begun.
        """
        job = Job(answer, row.owner, _weight(request))
        self.check_room(job.size)
        self._jobs[answer.id] = job
        self._size += job.size
        try:
            await self.store.put(row)
        except BaseException:
            self._end(job)
            raise
        job.add(answer.queue())
        request = structs.replace(request, tenant=row.owner)
        job.task = task = asyncio.ensure_future(self._make(job, request, strict=strict))
        running.add(task)

        def ended(_: object) -> None:
            running.discard(task)
            self._end(job)

        task.add_done_callback(ended)
        await asyncio.sleep(0)  # a task that is called off before its first step would tell nobody
        return job

    def _end(self, job: Job) -> None:
        del self._jobs[job.answer.id]
        self._size -= job.size

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


def _weight(request: Generate) -> int:
    """Bytes of a request, about: its body, and its conversation, most of which may have been kept before."""
    parts = [part for message in request.messages for part in message.parts]
    texts = sum(len(getattr(part, "text", "")) for part in parts)
    blobs = sum(len(part.source.data) for part in parts if isinstance(part, Image) and isinstance(part.source, Blob))
    return len(request.origin.body) + texts + blobs


async def _surely(work: Coroutine[Any, Any, T]) -> T:
    """Finish ``work``, which is short, even where its task is called off meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
