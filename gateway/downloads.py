"""Downloads that nobody waits for: each runs in a task of its own, and whoever began it asks how far it is.

The work itself is the library's, which many may share: a model that is being pulled already is pulled once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable

from canonical.errors import Busy, GatewayError, shutting_down
from canonical.progress import Progress

KEPT = 200
"""Downloads that are remembered, those that have ended included; beyond that the oldest of these are forgotten."""
RUNNING = 16
"""Downloads that may run at once."""
PATIENCE = 2.0
"""Seconds that the beginning of a download may take until its client is told of it anyway."""
WINDOW = 5.0
"""Seconds over which its speed is measured."""

logger = logging.getLogger("dragoman.downloads")

Pull = Callable[[str], AsyncGenerator[Progress, None]]


class Download:
    """One of them."""

    def __init__(self, name: str, owner: str, clock: Callable[[], float]) -> None:
        self.id = f"job_{secrets.token_hex(16)}"
        self.name = name
        self.owner = owner
        self.started = clock()
        self.ended = 0.0
        self.error: GatewayError | None = None
        self.news = asyncio.Event()
        """Set as soon as its size is known, or its end."""
        self.task: asyncio.Task[None] | None = None
        self._clock = clock
        self._parts: dict[str, tuple[int, int]] = {}
        self._seen: deque[tuple[float, int]] = deque([(self.started, 0)])

    @property
    def running(self) -> bool:
        """Whether it is still going on."""
        return not self.ended

    @property
    def total(self) -> int:
        """Bytes of all that is known to belong to it."""
        return sum(total for total, _ in self._parts.values())

    @property
    def completed(self) -> int:
        """Bytes of that that are here."""
        return sum(completed for _, completed in self._parts.values())

    @property
    def speed(self) -> float:
        """Bytes a second, of late."""
        (then, before), (now, after) = self._seen[0], self._seen[-1]
        return max(after - before, 0) / (now - then) if now > then else 0.0

    def note(self, progress: Progress) -> None:
        """Take note of a step."""
        if not progress.digest:
            return
        self._parts[progress.digest] = (progress.total, progress.completed)
        now = self._clock()
        self._seen.append((now, self.completed))
        while len(self._seen) > 2 and (self._seen[0][0] < now - WINDOW or len(self._seen) > 1_000):
            self._seen.popleft()
        if progress.total:
            self.news.set()

    def end(self, error: GatewayError | None = None) -> None:
        """It is over."""
        self.error = error
        self.ended = self._clock()
        self.news.set()


class Downloads:
    """All of this process; each belongs to the key that it was asked for with."""

    def __init__(self, pull: Pull, *, clock: Callable[[], float] = time.time, patience: float = PATIENCE) -> None:
        self._pull = pull
        self._clock = clock
        self._patience = patience
        self._all: dict[str, Download] = {}

    async def begin(self, name: str, *, owner: str) -> Download:
        """Begin one, or join the one of this name; back as soon as its size or its end is known, or after a moment.

        Raises:
            Busy: there are too many.
        """
        found = next(
            (one for one in self._all.values() if one.running and (one.name, one.owner) == (name, owner)), None
        )
        if found is None:
            if sum(one.running for one in self._all.values()) >= RUNNING:
                raise Busy("too many downloads are running", retry_after=30)
            found = Download(name, owner, self._clock)
            self._all[found.id] = found
            self._forget()
            found.task = asyncio.ensure_future(self._run(found))
        waiting = asyncio.ensure_future(found.news.wait())
        try:
            await asyncio.wait((waiting,), timeout=self._patience)
        finally:
            waiting.cancel()
        return found

    def get(self, id: str, *, owner: str) -> Download | None:
        """One by its id; None where ``owner`` has none of it."""
        found = self._all.get(id)
        return found if found is not None and found.owner == owner else None

    async def close(self) -> None:
        """Stop all that run. What they have fetched is there for the next one."""
        tasks = [one.task for one in self._all.values() if one.task is not None and not one.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, download: Download) -> None:
        steps = self._pull(download.name)
        try:
            async for progress in steps:
                download.note(progress)
            download.end()
        except GatewayError as error:
            download.end(error)
        except asyncio.CancelledError:
            download.end(shutting_down())
            raise
        except Exception:  # nobody waits for it: the log is told, and who asks learns little
            logger.exception("downloading %s failed", download.name)
            download.end(GatewayError("internal error"))
        finally:
            await steps.aclose()

    def _forget(self) -> None:
        over = len(self._all) - KEPT
        for id in [id for id, one in self._all.items() if not one.running][: max(over, 0)]:
            del self._all[id]
