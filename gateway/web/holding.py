"""Clients that are held until a job has come as far as they want; none is held when the gateway is to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from time import monotonic

from canonical.errors import GatewayError
from gateway.jobs import Job
from gateway.web.exchange import Gateway

GLANCE = 1.0
"""Seconds after which whoever waits looks whether the gateway is ending."""
ENDLESS = float("inf")


async def held(
    gateway: Gateway, jobs: AsyncGenerator[Job, None], job: Job, seconds: float, enough: Callable[[Job], bool]
) -> Job:
    """The job as soon as it is ``enough``, or as it is when the time is over, or the gateway is to end."""
    end = monotonic() + seconds
    async with aclosing(watched(gateway, jobs, end)) as states:
        async for seen in states:
            job = seen or job
            if enough(job) or monotonic() >= end:
                break
    return job


async def watched(
    gateway: Gateway, jobs: AsyncGenerator[Job, None], end: float = ENDLESS
) -> AsyncGenerator[Job | None, None]:
    """A job at each of its changes, and None now and then between; it ends with the job, or when the gateway is to end."""

    def pause() -> float | None:
        return None if gateway.draining else max(0.0, min(GLANCE, end - monotonic()))

    async with aclosing(with_pauses(jobs, pause)) as states:
        async for job in states:
            yield job


async def with_pauses(
    jobs: AsyncGenerator[Job, None], pause: Callable[[], float | None]
) -> AsyncGenerator[Job | None, None]:
    """A job at each of its changes, and None whenever there was none for ``pause()`` seconds; it ends where that is None."""
    coming: asyncio.Future[Job | None] | None = None
    try:
        while (seconds := pause()) is not None:
            coming = coming or asyncio.ensure_future(anext(jobs, None))
            await asyncio.wait((coming,), timeout=seconds)
            if not coming.done():
                yield None
                continue
            job, coming = coming.result(), None
            if job is None:
                return
            yield job
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, GatewayError):
                await coming
        await jobs.aclose()
