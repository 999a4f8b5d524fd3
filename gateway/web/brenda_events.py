"""Long work of Brenda's dialect, told while it goes on: a load, or a picture in the making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import ClassVar, Protocol

from canonical.errors import GatewayError
from gateway.web.exchange import Exchange

HEARTBEAT = 15.0
"""Seconds of silence behind which it is said that it goes on: proxies cut what is silent for a minute."""


class Events(Protocol):
    """How the events of one kind of work are worded."""

    media_type: ClassVar[str]
    heartbeat: ClassVar[bytes]

    @staticmethod
    def fail(error: GatewayError) -> bytes:
        """The last event of what has failed."""


async def tell(exchange: Exchange, frames: AsyncGenerator[bytes, None], events: type[Events]) -> None:
    """Send the frames as they come, and in a long silence a sign of life."""
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(frames, None))
            await asyncio.wait((coming,), timeout=HEARTBEAT)
            frame: bytes | None = events.heartbeat
            if coming.done():
                frame, coming = coming.result(), None
            if frame is None:
                break
            if frame:
                if not exchange.status:
                    await exchange.begin(events.media_type)
                await exchange.piece(frame)
        await exchange.end()
    except BaseException as error:  # noqa: BLE001  it is told or raised there
        await exchange.break_off(error, events.fail)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        await frames.aclose()
