"""What is begun and has to be finished, whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unbroken(work: Awaitable[T]) -> T:
    """Finish ``work``, which is short, even where its task is called off meanwhile: that comes afterwards."""
    task = asyncio.ensure_future(work)
    called_off: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            called_off = error
    if called_off is not None:
        _ = task.cancelled() or task.exception()  # it is heard of, though nobody is told
        raise called_off
    return task.result()
