"""Long work that many may wait for and watch: it runs once, and stops when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from backends.base import Tell
from canonical.progress import Progress

T = TypeVar("T")


class Watched(Generic[T]):
    """One piece of work, from its start to its end. ``work`` takes what it tells its progress to."""

    def __init__(self, work: Callable[[Tell], Awaitable[T]]) -> None:
        self.latest: Progress | None = None
        """The last that was told."""
        self._watchers = 0
        self._changed = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(work))

    async def _run(self, work: Callable[[Tell], Awaitable[T]]) -> T:
        return await work(self._tell)

    def _tell(self, progress: Progress) -> None:
        self.latest = progress
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._task.done()

    async def wait(self) -> T:
        """Its value. Raises what it raised. Cancelling this leaves it to the others; the last to leave stops it."""
        self._watchers += 1
        try:
            return await asyncio.shield(self._task)
        finally:
            await self._leave()

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """Each progress, or the latest where the reader is slow. Raises what it raised; closing as in ``wait``."""
        self._watchers += 1
        seen: Progress | None = None
        try:
            while True:
                changed = self._changed
                if self.latest is not None and self.latest is not seen:
                    seen = self.latest
                    yield seen
                    continue
                if self._task.done():
                    await self._task
                    return
                waiting = asyncio.ensure_future(changed.wait())
                try:
                    await asyncio.wait((waiting, self._task), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiting.cancel()
        finally:
            await self._leave()

    async def _leave(self) -> None:
        self._watchers -= 1
        if not self._watchers and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))
