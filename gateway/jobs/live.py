"""What is known of jobs in memory: how far those are that run in this process, and who watches which."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from gateway.jobs.job import Job


class News:
    """The last that was heard of one job, for all that watch it. Who is slow misses some on the way, never the last."""

    def __init__(self) -> None:
        self.version = 0
        """Counts what was heard."""
        self.job: Job | None = None
        """None once it was heard: there is no such job any more."""
        self.watchers = 0
        self._next = asyncio.Event()

    def tell(self, job: Job | None) -> None:
        """Wake all who wait."""
        self.version += 1
        self.job = job
        told, self._next = self._next, asyncio.Event()
        told.set()

    async def after(self, version: int) -> None:
        """Wait until more was heard than this."""
        while self.version == version:
            await self._next.wait()


class Live:
    """All that this process knows and the rows do not yet."""

    def __init__(self) -> None:
        self._here: dict[str, Job] = {}
        self._news: dict[str, News] = {}

    def get(self, id: str) -> Job | None:
        """A job that this process works on; its row is behind."""
        return self._here.get(id)

    def put(self, job: Job) -> None:
        """It is worked on here, and is so far."""
        self._here[job.id] = job
        self.tell(job)

    def drop(self, job: Job) -> None:
        """It is worked on here no more, and its row says the same."""
        self._here.pop(job.id, None)
        self.tell(job)

    def tell(self, job: Job) -> None:
        """Whoever watches it hears of it."""
        if (news := self._news.get(job.id)) is not None:
            news.tell(job)

    def forget(self, id: str) -> None:
        """There is no such job any more."""
        self._here.pop(id, None)
        if (news := self._news.get(id)) is not None:
            news.tell(None)

    @property
    def running(self) -> int:
        """How many this process works on."""
        return len(self._here)

    @property
    def elsewhere(self) -> dict[str, News]:
        """What is watched here and not worked on here: somebody has to look."""
        return {id: news for id, news in self._news.items() if id not in self._here}

    @contextlib.contextmanager
    def watched(self, id: str) -> Iterator[News]:
        """News of a job, for as long as the context lasts."""
        news = self._news.setdefault(id, News())
        news.watchers += 1
        try:
            yield news
        finally:
            news.watchers -= 1
            if not news.watchers:
                self._news.pop(id, None)
