"""Runs an engine inside the gateway's process: a thread for each running request, none of them the event loop's."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from backends import threads
from backends.base import Tell, tell_nobody
from backends.llama_cpp.engine import Emit, Engine, Kind, Start
from backends.llama_cpp.loading import GLANCE, Gauge
from backends.workers.frames import Pulse
from backends.workers.pulse import Watch
from canonical.errors import BackendTimeout, BackendUnavailable

T = TypeVar("T")

logger = logging.getLogger("dragoman.workers")


class Runner(Protocol):
    """An engine as the event loop sees it, wherever it runs."""

    def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The chunks of one answer. Closing the generator stops it and waits until it is out."""

    async def embed(self, body: bytes) -> bytes:
        """The answer to an OpenAI embeddings body."""

    async def rerank(self, body: bytes) -> bytes:
        """The answer to the body of ``/v1/rerank``."""

    async def close(self) -> None:
        """Free the memory."""


class _Call:
    """One call of the engine, as it stands."""

    def __init__(self) -> None:
        self.computing, self.stepping = True, False


class InProcess:
    """An engine in this process. ``hang``: seconds without a sign of life after which it counts as hung; 0: never.

    A hung one cannot be ended here: its requests are, and it gets no more.
    """

    def __init__(self, engine: Engine, *, name: str = "model", hang: float = 60.0) -> None:
        self.engine = engine
        self._name, self._hang = name, hang
        self._bell = threads.Bell()
        self._calls: set[_Call] = set()
        self._steps = 0
        self._watching: asyncio.Task[None] | None = None
        self._hung = False

    @classmethod
    async def start(
        cls,
        name: str,
        load: Callable[[Start], Engine],
        start: Start,
        *,
        size: int = 0,
        hang: float = 60.0,
        tell: Tell = tell_nobody,
    ) -> InProcess:
        """Load a model. A load cannot be stopped: cancelling this waits for its end, and then frees what it took."""
        loading = asyncio.ensure_future(threads.call(lambda: load(start), name="llama-load"))
        gauge = Gauge(start.path, size, tell)
        try:
            while True:
                await asyncio.wait((loading,), timeout=GLANCE)
                if loading.done():
                    break
                await gauge.look(os.getpid())
        except BaseException:
            await threads.settled(asyncio.ensure_future(_undo(loading)))
            raise
        return cls(loading.result(), name=name, hang=hang)

    async def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """See ``Runner``."""
        call = self._begin()

        def work(emit: Emit) -> None:
            def counted(chunk: bytes) -> bool:
                self._steps += 1  # two at once may count as one: it only has to change
                call.computing, call.stepping = False, True  # a slow reader is not the engine's fault
                stop = emit(chunk)
                call.computing = True
                return stop

            try:
                self.engine.stream(kind, body, counted)
            finally:
                self._calls.discard(call)

        async with aclosing(threads.stream(work, name=f"llama-{kind}", bell=self._bell)) as chunks:
            async for batch in chunks:
                yield batch

    async def embed(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self._whole(lambda: self.engine.embed(body), "llama-embed")

    async def rerank(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self._whole(lambda: self.engine.rerank(body), "llama-rerank")

    async def close(self) -> None:
        """See ``Runner``."""
        if self._watching is not None:
            self._watching.cancel()
        if self._hung and self._calls:
            logger.error("the engine of %r still hangs; its memory is free when the gateway ends", self._name)
            return
        await threads.call(self._free, name="llama-close")

    def _free(self) -> None:
        """Without a word glibc keeps what is freed for threads to come: 60 MB after a hundred loads of small models."""
        self.engine.close()
        with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have no such call
            ctypes.CDLL(None).malloc_trim(0)

    async def _whole(self, work: Callable[[], T], name: str) -> T:
        call = self._begin()

        def counted() -> T:
            try:
                return work()
            finally:
                self._calls.discard(call)

        return await threads.call(counted, name=name, bell=self._bell)

    def _begin(self) -> _Call:
        """Raises BackendUnavailable where the engine hangs."""
        if self._hung and self._calls:
            raise BackendUnavailable(f"the engine of the model {self._name!r} hangs", status=503, retry_after=60)
        self._hung = False  # it came back
        call = _Call()
        self._calls.add(call)
        if self._hang and (self._watching is None or self._watching.done()):
            self._watching = asyncio.ensure_future(self._guard())
        return call

    async def _guard(self) -> None:
        """Look after it while it has something to do."""
        watch, pause = Watch(self._hang), min(max(self._hang / 6, 0.02), 10.0)
        while self._calls:
            await asyncio.sleep(pause)
            if watch.feel(asyncio.get_running_loop().time(), self._pulse()):
                self._hung = True
                logger.error(
                    "the engine of %r hangs; it gets no more requests until the gateway restarts. "
                    "With `isolation: process` it would have been ended and started again",
                    self._name,
                )
                self._bell.silence(BackendTimeout(f"the engine of the model {self._name!r} hung"))
                return

    def _pulse(self) -> Pulse:
        now = [call for call in list(self._calls) if call.computing]
        return Pulse(self._steps, len(now), sum(call.stepping for call in now), time.process_time())


async def _undo(loading: asyncio.Task[Engine]) -> None:
    """Close what a load that nobody wants any more brings."""
    await asyncio.wait((loading,))
    if not loading.cancelled() and loading.exception() is None:
        await threads.call(loading.result().close, name="llama-close")
