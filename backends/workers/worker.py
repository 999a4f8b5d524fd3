"""The gateway's side of a worker process: starts it, asks it, and answers for it when it dies.

A death fails the requests that were running and no others; the next request starts a new process. Deaths that repeat
are a pattern: then requests are refused for a while, longer each time. One whose engine hangs is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct

from backends.threads import settled
from backends.workers.deaths import Deaths
from backends.workers.failing import Failed, could_not
from backends.workers.frames import Ask, Open, Ping, Stop, Taken
from backends.workers.life import Answer, Life
from backends.workers.pulse import Watch
from canonical.errors import BackendTimeout, BackendUnavailable, GatewayError, WorkerDied

LOADING = 600.0
"""Seconds a model may take to load."""
STUCK = 5.0
"""Seconds between asking an answer to stop and killing the process that does not."""
GLANCE = 0.1
"""Seconds between two looks at how far a load is."""
SEEN = 20
"""Lines of what a process printed before it failed that are logged."""

Far = Callable[[float], None]
"""Takes how much is loaded, 0 to 1, where the engine tells."""
Look = Callable[[int], Awaitable[None]]
"""Takes the id of a process that is loading."""

logger = logging.getLogger("dragoman.workers")


class Job(Struct, frozen=True, kw_only=True):
    """What a process is started for."""

    name: str
    """The model's, for messages."""
    module: str
    """What it runs: a module whose ``main`` is ``desk.main``."""
    start: bytes
    """What that loads."""
    slots: int = 1
    memory: int = 0
    """Bytes that it may have; 0: no limit."""
    hang: float = 60.0
    """Seconds without a sign of life after which it is ended; 0: never."""


class Worker:
    """A process that is started again after it died. ``explain`` words the error of a load that failed."""

    def __init__(
        self, job: Job, deaths: Deaths | None = None, explain: Callable[[str, Failed], GatewayError] = could_not
    ) -> None:
        self._job = job
        self._deaths = deaths or Deaths()
        self._explain = explain
        self._ids = itertools.count()
        self._life: Life | None = None
        self._opening: asyncio.Task[Life] | None = None
        self._waiting = 0
        self._watching: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = self._once = False

    async def start(self, far: Far | None = None, gauge: Look | None = None) -> None:
        """Start a process and wait until it is loaded. Cancelling this ends it, and waits until its memory is free.

        Where it was loaded in the same instant, or others wait for it, only ``close`` does.

        ``gauge`` is called now and then meanwhile, to look how far it is.

        Raises:
            GatewayError: it cannot be loaded.
        """
        await self._alive(far, gauge)

    @property
    def pid(self) -> int | None:
        """The process, while there is one that is loaded."""
        return self._life.process.pid if self._life is not None else None

    async def stream(self, kind: str, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The chunks of one answer. Closing the generator stops it and waits until it is out."""
        life = await self._alive()
        id, answer = next(self._ids), Answer()
        life.answers[id] = answer
        self._watch(life)
        try:
            life.tell(Ask(id, kind, body))
            await life.drain()
            while True:
                await answer.changed.wait()
                answer.changed.clear()
                chunks, answer.chunks = answer.chunks, []
                if chunks:
                    yield chunks
                    life.tell(Taken(id, len(chunks)))
                elif answer.over.is_set():
                    break
                if answer.over.is_set():
                    answer.changed.set()
        finally:
            await self._settle(life, id, answer)
        if answer.failure is not None:
            raise answer.failure

    async def whole(self, kind: str, body: bytes) -> bytes:
        """An answer in one piece."""
        found = [chunk async for chunks in self.stream(kind, body) for chunk in chunks]
        return b"".join(found)

    async def close(self) -> None:
        """End the process; done when its memory is free."""
        self._closed = True
        opening = self._opening
        if opening is not None:
            opening.cancel()
            await settled(opening)
        life, self._life = self._life, None  # now, as the load may just have ended
        if life is not None:
            life.wanted = False
            life.kill()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _settle(self, life: Life, id: int, answer: Answer) -> None:
        """Stop what still runs and wait for its end, through cancellations, for the slot's next user waits on that."""
        cancelled: asyncio.CancelledError | None = None
        if not answer.over.is_set():
            life.tell(Stop(id))
        deadline = asyncio.get_running_loop().time() + STUCK
        while not answer.over.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await answer.over.wait()
            except TimeoutError:
                life.wanted = False  # it did not die of itself: whoever leaves must not make it look as if
                life.kill()
                deadline += STUCK
            except asyncio.CancelledError as error:
                cancelled = error
        del life.answers[id]
        if cancelled is not None:
            raise cancelled

    async def _alive(self, far: Far | None = None, gauge: Look | None = None) -> Life:
        """The running process, started if there is none; many may wait for one start, and the last to leave ends it.

        Raises:
            BackendUnavailable: it has died too often of late.
            GatewayError: it cannot be loaded.
        """
        while self._opening is not None and self._opening.cancelling():
            await asyncio.wait((self._opening,))  # given up a moment ago, and not yet gone
        if self._closed:
            raise BackendUnavailable(f"the model {self._job.name!r} is being unloaded", status=503, retry_after=1)
        if self._life is not None:
            if not self._life.dead:
                return self._life
            await asyncio.wait((self._life.ended,))  # nobody has noticed yet
            self._life = None
        if self._opening is None:
            self._check_deaths()
            self._opening = asyncio.ensure_future(self._open(far, gauge))
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        self._waiting += 1
        try:
            return await asyncio.shield(opening)
        finally:
            self._waiting -= 1
            if not self._waiting and not opening.done():
                opening.cancel()
                await settled(opening)

    def _opened(self, opening: asyncio.Task[Life]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None:
            self._life = opening.result()
            if self._life.ended.done():  # it died in the same instant
                self._life = None

    async def _open(self, far: Far | None, gauge: Look | None) -> Life:
        job = self._job
        life = await Life.begin(job.module, job.name, far or (lambda _: None))
        follower = self._spawn(self._follow(life))
        try:
            life.tell(Open(job.start, job.slots, job.memory, os.getpid()))
            await self._load(life, gauge)
        except BaseException:
            if not life.ended.done():
                life.wanted = False
                life.kill()
            await settled(follower)
            raise
        self._once = True
        return life

    async def _load(self, life: Life, gauge: Look | None) -> None:
        name, loop = self._job.name, asyncio.get_running_loop()
        deadline = loop.time() + LOADING
        while not life.opened.done() and not life.ended.done():
            left = deadline - loop.time()
            if left <= 0:
                raise BackendTimeout(f"the model {name!r} did not load within {LOADING:g} s")
            if gauge is not None:
                await gauge(life.process.pid)
            pause = left if gauge is None else min(left, GLANCE)
            await asyncio.wait((life.opened, life.ended), timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        words = f"its process {life.how()}"
        if life.opened.done():
            words = life.opened.result()
            if not words:
                return
            life.wanted = False
            life.kill()
            await asyncio.shield(life.ended)
            if self._once:  # it did load before, so something is wrong
                self._deaths.add()
        for line in life.said.splitlines()[-SEEN:]:
            logger.warning("the worker of %r said while loading: %r", name, line)
        raise self._explain(name, Failed(words, life.said, life.starved))

    async def _follow(self, life: Life) -> None:
        """Wait for the end of a process, and tell those who wait for its answers."""
        await asyncio.shield(life.ended)
        if self._life is life:
            self._life = None
        how = f"the worker of the model {self._job.name!r} {life.how()}"
        if life.wanted:
            self._deaths.add()
            logger.warning("%s", how)
        kind = BackendTimeout if life.hung else WorkerDied
        for answer in list(life.answers.values()):
            answer.end(kind(how))

    def _watch(self, life: Life) -> None:
        if self._job.hang and (self._watching is None or self._watching.done()):
            self._watching = self._spawn(self._guard(life))

    async def _guard(self, life: Life) -> None:
        """Kill it when it hangs; runs while it has something to answer."""
        limit, loop = self._job.hang, asyncio.get_running_loop()
        watch, pause = Watch(limit), min(max(limit / 6, 0.02), 10.0)
        life.heard = loop.time()
        life.tell(Ping())
        while True:
            await asyncio.wait((life.ended,), timeout=pause)
            if life.ended.done() or not life.answers:
                return
            now = loop.time()
            pulse, life.pulse = life.pulse, None
            hung = now - life.heard >= limit
            if pulse is not None:
                hung = watch.feel(now, pulse)
                life.tell(Ping())
            if hung:
                life.hung = True
                life.kill()
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_deaths(self) -> None:
        left = self._deaths.left()
        if left > 0:
            raise BackendUnavailable(
                f"the worker of the model {self._job.name!r} keeps dying; it is tried again in {left:.0f} s",
                status=503,
                retry_after=round(left + 0.5),
            )
