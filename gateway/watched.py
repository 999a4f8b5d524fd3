"""Long work that many may wait for and watch: it runs once, and stops when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

from backends.base import Tell
from canonical.progress import Progress

T = TypeVar("T")
KEPT = 256
"""Steps that are remembered for who joins late, each the latest of its blob or kind."""


class Watched(Generic[T]):
    """One piece of work, from its start to its end. ``work`` takes what it tells its progress to."""

    def __init__(self, work: Callable[[Tell], Awaitable[T]]) -> None:
        self.latest: Progress | None = None
        """The last that was told."""
        self.stopping = False
        """Whether the last has left: who comes now has to wait for the end and begin anew."""
        self._news: dict[str, tuple[int, Progress]] = {}
        """The latest of each blob, or of each status, with its number; in the order of telling."""
        self._told = 0
        self._watchers = 0
        self._changed = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(work))
        self._task.add_done_callback(_seen)

    async def _run(self, work: Callable[[Tell], Awaitable[T]]) -> T:
        return await work(self._tell)

    def _tell(self, progress: Progress) -> None:
        self.latest = progress
        self._told += 1
        kind = progress.digest or progress.status
        self._news.pop(kind, None)
        self._news[kind] = (self._told, progress)
        if len(self._news) > KEPT:
            del self._news[next(iter(self._news))]
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
        """What is told, of each blob and kind the latest where the reader is slow or late.

        Raises what it raised; closing as in ``wait``.
        """
        self._watchers += 1
        seen = 0
        try:
            while True:
                changed = self._changed
                if self._told > seen:
                    news = [progress for number, progress in self._news.values() if number > seen]
                    seen = self._told
                    for progress in news:
                        yield progress
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

    def then(self, call: Callable[[], object]) -> None:
        """Have something called at its end, before anybody hears of it: also where it was stopped while it tidied up."""
        self._task.add_done_callback(lambda _: call())

    async def ended(self) -> None:
        """Wait for its end, without keeping it up."""
        await asyncio.wait((self._task,))

    def stop(self) -> None:
        """Stop it, whoever waits."""
        if not self._task.done():
            self.stopping = True
            self._task.cancel()

    async def _leave(self) -> None:
        self._watchers -= 1
        if not self._watchers and not self._task.done():
            self.stop()
            await asyncio.wait((self._task,))


def _seen(task: asyncio.Task[T]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()
