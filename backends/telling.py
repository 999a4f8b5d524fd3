"""Work that tells its progress, as a generator: closing it stops the work, and waits until it has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from backends.base import Tell
from canonical.progress import Progress


async def told(work: Callable[[Tell], Awaitable[None]]) -> AsyncGenerator[Progress, None]:
    """Yield what ``work`` tells; of steps about one blob, a slow reader gets the latest. What it raises is raised here."""
    steps: deque[Progress] = deque()
    last: Progress | None = None
    changed = asyncio.Event()

    def tell(step: Progress) -> None:
        nonlocal last
        if step == last:
            return
        last = step
        if steps and (steps[-1].status, steps[-1].digest) == (step.status, step.digest):
            steps[-1] = step
        else:
            steps.append(step)
        changed.set()

    task = asyncio.ensure_future(work(tell))
    task.add_done_callback(lambda _: changed.set())
    try:
        while not task.done() or steps:
            if steps:
                yield steps.popleft()
            else:
                changed.clear()
                await changed.wait()
        await task
    finally:
        task.cancel()
        await asyncio.wait((task,))
