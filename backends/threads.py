"""Blocking work in a thread of its own, seen from the event loop as an async generator that can be stopped.

The work gets a function ``emit`` that it calls with each item; ``emit`` answers True once nobody listens any more, and
then the work should return. Closing the generator stops the work and **waits until its thread is out**, so that whoever
holds a lease on what the thread uses gives it back no sooner.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

Emit = Callable[[T], bool]

LAG = 256
"""Items that may wait for a slow consumer; then ``emit`` blocks, and with it the work."""


async def stream(
    work: Callable[[Emit[T]], None], *, name: str = "work", lag: int = LAG
) -> AsyncGenerator[list[T], None]:
    """Yield what ``work`` emits, all that is pending at once. What it raises is raised here.

    A thread per call, not the loop's executor: that one has few threads, and a full one would hold up the rest.
    """
    channel: _Channel[T] = _Channel(asyncio.get_running_loop(), lag)
    threading.Thread(target=channel.run, args=(work,), name=name, daemon=True).start()
    try:
        while True:
            await channel.ready.wait()
            items, over = channel.drain()
            if items:
                yield items
            if over:
                break
    finally:
        channel.close()
        await _settled(channel.out)
    if channel.error is not None:
        raise channel.error


async def call(work: Callable[[], T], *, name: str = "work") -> T:
    """The result of a blocking function that cannot be stopped: when cancelled, this still waits for its end."""
    results: list[T] = []

    def keep(_emit: Emit[None]) -> None:
        results.append(work())

    async for _ in stream(keep, name=name):
        pass
    return results[0]


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
    """Items from the worker's thread to the loop: one wake-up for all that came since the last."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lag: int) -> None:
        self.ready, self.out = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self._loop, self._lag = loop, lag
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._woken = self._closed = self._over = False

    def drain(self) -> tuple[list[T], bool]:
        """On the loop: everything pending, and whether nothing more will come."""
        with self._changed:
            self.ready.clear()
            self._woken = False
            items, self._items = self._items, []
            if len(items) >= self._lag:
                self._changed.notify()
            return items, self._over

    def close(self) -> None:
        """On the loop: nobody listens any more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify()

    def run(self, work: Callable[[Emit[T]], None]) -> None:
        """In the thread."""
        try:
            work(self._emit)
        except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the consumer
            self.error = error
        with self._changed:
            self._over = True
        self._tell(self._end)

    def _emit(self, item: T) -> bool:
        with self._changed:
            if self._closed:
                return True
            self._items.append(item)
            wake, self._woken = not self._woken, True
        if wake and not self._tell(self.ready.set):
            return True
        if len(self._items) >= self._lag:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._items) < self._lag)
        return self._closed

    def _end(self) -> None:
        self.out.set()
        self.ready.set()

    def _tell(self, callback: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: the process is ending
            return False
        return True
