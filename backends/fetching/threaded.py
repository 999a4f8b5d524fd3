"""Blocking work on one file in a few threads, in order of asking; a cancelled caller still waits until its work is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from backends.threads import settled

T = TypeVar("T")


class Threads:
    """Threads of one download: the loop's own executor is small, and others wait for it."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="fetch")

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin; ``result`` waits for it."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def call(self, work: Callable[[], T]) -> T:
        """Its result."""
        return await result(self.start(work))

    def close(self) -> None:
        """No more work; all of it has been waited for."""
        self._pool.shutdown(wait=False)


async def result(future: asyncio.Future[T]) -> T:
    """Its result. When cancelled, this waits for the end first: the thread uses what the caller will then close."""
    try:
        await settled(future)
    except asyncio.CancelledError:
        future.exception()  # looked at: nobody else will
        raise
    return future.result()
