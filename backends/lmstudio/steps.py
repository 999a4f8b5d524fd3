"""Work that tells how far it is, as a generator of what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from backends.base import Tell
from canonical.progress import Progress


async def told(work: Callable[[Tell], Awaitable[None]]) -> AsyncGenerator[Progress, None]:
    """Each step of ``work``. Raises what it raised; closing this cancels it, and waits until it has ended."""
    steps: asyncio.Queue[Progress | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await work(steps.put_nowait)
        finally:
            steps.put_nowait(None)

    running = asyncio.ensure_future(run())
    try:
        while (step := await steps.get()) is not None:
            yield step
        await running
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait((running,))
