"""What a worker does with one job, wherever it runs: read what it begins with, paint, keep each picture.

It knows no queue and no row: who has claimed the job hears of each step and of each picture that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct, structs

from canonical.errors import BackendTimeout, Busy, GatewayError, WorkerDied
from canonical.media import Blob
from canonical.painting import SEED, Paint, Painted, Step
from gateway.engine import Engine
from gateway.jobs.files import Files, new_name
from gateway.jobs.job import Result
from gateway.painting import painted
from gateway.unbroken import unbroken

IMAGES = ("image", "mask", "reference")
"""The fields of a request that are files while it waits."""
TOO_LONG = "job_time"
"""The code of a job that ran longer than it may."""
PATIENCE = 900.0
"""Seconds for which a model that is busy is tried again."""
PAUSE, LONGEST_PAUSE = 1.0, 30.0
logger = logging.getLogger("dragoman")


class Input(Struct, frozen=True):
    """An image that a job begins with, as a file."""

    name: str
    media_type: str


class Order(Struct, frozen=True, kw_only=True):
    """A job as it is handed to a worker: all of it is text."""

    request: Paint
    """Without images."""
    inputs: dict[str, Input] = {}
    """By field of the request."""
    results: tuple[Result, ...] = ()
    """What an earlier worker has made of it."""


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of it; ``error`` and the rest where it failed."""

    results: tuple[Result, ...] = ()
    error: str = ""
    code: str = ""
    status: int = 0
    died: bool = False
    """The process that painted has: another one may do better."""


Tell = Callable[[Step], Awaitable[None]]
Keep = Callable[[Result], Awaitable[None]]


async def work(engine: Engine, files: Files, order: Order, *, tell: Tell, keep: Keep, time: float = 0) -> Outcome:
    """Paint what is missing. It fails with an outcome that says why; cancelling it stops within a step.

    ``keep`` is called when a picture's file is durable; ``time``: seconds it may take, 0: as long as it does.
    """
    results = list(order.results)
    limit = asyncio.timeout(time or None)
    try:
        async with limit:
            await _patiently(lambda: _paint(engine, files, order, results, tell, keep))
    except WorkerDied as error:
        return structs.replace(_failed(results, error), died=True)
    except GatewayError as error:
        return _failed(results, error)
    except Exception:
        if limit.expired():
            return _failed(results, BackendTimeout(f"it was not done after {time:g} s: `jobs.time`", code=TOO_LONG))
        logger.exception("a job failed")
        return _failed(results, GatewayError("something went wrong here", code="internal_error"))
    return Outcome(results=tuple(results))


async def _patiently(paint: Callable[[], Awaitable[None]]) -> None:
    """Paint, and try again where the model cannot be had for now: its memory is another's, or its process keeps dying.

    Raises:
        GatewayError: as ``paint``; where the model cannot be had for long.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            return await paint()
        except GatewayError as error:
            if not error.retry or error.status != Busy.status or loop.time() > deadline:
                raise
            await asyncio.sleep(min(max(error.retry_after or PAUSE, PAUSE), LONGEST_PAUSE))


async def _paint(  # noqa: PLR0917  all that there is to a job
    engine: Engine, files: Files, order: Order, results: list[Result], tell: Tell, keep: Keep
) -> None:
    first = len(results)
    request = order.request
    if first >= request.n:
        return
    assert request.seed is not None
    images = {field: Blob(await files.get(one.name), one.media_type) for field, one in order.inputs.items()}
    # Each picture is what it would be alone, so that the rest of them is a request of its own.
    rest = structs.replace(request, seed=(request.seed + first) % (SEED + 1), n=request.n - first, **images)
    async with contextlib.aclosing(painted(engine, rest)) as events:
        async for event in events:
            match event:
                case Step():
                    await tell(structs.replace(event, index=event.index + first))
                case Painted():
                    results.append(await unbroken(_kept(files, event, keep)))


async def _kept(files: Files, event: Painted, keep: Keep) -> Result:
    data = event.image.data
    made = structs.replace(event.made, **dict.fromkeys(IMAGES))
    digest = await asyncio.to_thread(sha256, data)
    name = new_name(event.image.media_type)
    result = Result(name=name, size=len(data), made=made, warnings=event.warnings, digest=digest)
    await files.put(name, data)
    try:
        await keep(result)
    except BaseException:
        with contextlib.suppress(GatewayError):
            await files.delete([name])
        raise
    return result


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _failed(results: list[Result], error: GatewayError) -> Outcome:
    return Outcome(results=tuple(results), error=error.message, code=error.code or "", status=error.status)
