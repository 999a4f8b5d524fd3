"""Blocking work in a thread of its own, seen from the event loop as an async generator that can be stopped.

The work gets a function ``emit`` that it calls with each item; ``emit`` answers True once nobody listens any more, and
then the work should return. Closing the generator stops the work and **waits until its thread is out**, so that whoever
holds a lease on what the thread uses gives it back no sooner.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Emit = Callable[[T], bool]

LAG = 256
"""Items that may wait for a slow consumer; then ``emit`` blocks, and with it the work."""
CROWD = 4
"""Streams that share a bell from which on it waits a moment for the others."""
MOMENT = 0.001
"""Seconds."""


class Bell:
    """Wakes the loop for several streams at once.

    An engine that computes a token for each of 16 requests in one step hands them over within half a millisecond. A
    wake-up for each would make 16 threads and the loop fight for the interpreter; so the first rings, and in a crowd
    the loop looks a moment later, when all are there. A few streams are never kept waiting.
    """

    def __init__(self) -> None:
        self.channels: set[_Channel[Any]] = set()
        """Of the streams that share it now."""
        self._rung: deque[_Channel[Any]] = deque()
        self._called = False

    def ring(self, channel: _Channel[Any]) -> bool:
        """From any thread: ``channel`` has something. False: the loop is closed."""
        self._rung.append(channel)
        if self._called:
            return True  # whoever called looks at all that rang before
        self._called = True
        return channel.tell(self._heard, channel.loop)

    @property
    def streams(self) -> int:
        """How many share it."""
        return len(self.channels)

    def silence(self, error: Exception) -> None:
        """On the loop: end all streams with ``error`` and wait for none of their threads, which may never come back."""
        for channel in self.channels:
            channel.abandon(error)

    def _heard(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.streams < CROWD:
            self._look()
        else:
            loop.call_later(MOMENT, self._look)

    def _look(self) -> None:
        self._called = False
        while self._rung:
            self._rung.popleft().ready.set()


async def stream(
    work: Callable[[Emit[T]], None], *, name: str = "work", lag: int = LAG, bell: Bell | None = None
) -> AsyncGenerator[list[T], None]:
    """Yield what ``work`` emits, all that is pending at once. What it raises is raised here.

    A thread per call, not the loop's executor: that one has few threads, and a full one would hold up the rest.
    Streams of one engine share a ``bell``.
    """
    bell = bell or Bell()
    channel: _Channel[T] = _Channel(asyncio.get_running_loop(), lag, bell)
    threading.Thread(target=channel.run, args=(work,), name=name, daemon=True).start()
    bell.channels.add(channel)
    try:
        while True:
            await channel.ready.wait()
            items, over = channel.drain()
            if items:
                yield items
            if over:
                break
    finally:
        bell.channels.discard(channel)
        channel.close()
        await _settled(channel.out)
    if channel.error is not None:
        raise channel.error


async def call(work: Callable[[], T], *, name: str = "work", bell: Bell | None = None) -> T:
    """The result of a blocking function that cannot be stopped: when cancelled, this still waits for its end."""
    results: list[T] = []

    def keep(_emit: Emit[None]) -> None:
        results.append(work())

    async for _ in stream(keep, name=name, bell=bell):
        pass
    return results[0]


async def settled(task: asyncio.Future[Any]) -> None:
    """Wait for a task's end, however it ends, through any number of cancellations; the last is passed on afterwards."""
    out = asyncio.Event()
    task.add_done_callback(lambda _: out.set())
    await _settled(out)


async def _settled(out: asyncio.Event) -> None:
    """Wait for ``out`` through any number of cancellations; the last one is passed on afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not out.is_set():
        try:
            await out.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


class _Channel(Generic[T]):
    """Items from the worker's thread to the loop.

    The hand-over takes no lock: a deque's ends are safe between threads, and each side looks again after it has said
    so. Only a full channel waits, on ``_changed``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, lag: int, bell: Bell) -> None:
        self.loop = loop
        self.ready, self.out = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self._lag, self._bell = lag, bell
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._rung = self._closed = self._over = False

    def drain(self) -> tuple[list[T], bool]:
        """On the loop: everything pending, and whether nothing more will come."""
        self.ready.clear()
        self._rung = False  # before looking: what comes later rings again
        over = self._over  # likewise: nothing comes after it
        items = [self._items.popleft() for _ in range(len(self._items))]
        if len(items) >= self._lag:
            with self._changed:
                self._changed.notify()
        return items, over

    def close(self) -> None:
        """On the loop: nobody listens any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify()

    def abandon(self, error: Exception) -> None:
        """On the loop: what the thread does counts no more."""
        self.error, self._over = error, True
        self.close()
        self._end()

    def run(self, work: Callable[[Emit[T]], None]) -> None:
        """In the thread."""
        try:
            work(self._emit)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the consumer
            self.error = self.error or error
        self._over = True
        self.tell(self._end)

    def tell(self, callback: Callable[..., None], *arguments: Any) -> bool:
        """From any thread: have the loop call something. False: it is closed, the process is ending."""
        try:
            self.loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def _emit(self, item: T) -> bool:
        if self._closed:
            return True
        self._items.append(item)
        if not self._rung:
            self._rung = True
            if not self._bell.ring(self):
                return True
        if len(self._items) >= self._lag:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._lag)
        return self._closed

    def _end(self) -> None:
        self.out.set()
        self.ready.set()
