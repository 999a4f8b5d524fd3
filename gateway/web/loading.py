"""A load told in the stream of the answer that waits for it, as LM Studio's chats have it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from adapters.lmstudio.serve import ChatStream
from canonical.events import Event
from canonical.progress import Progress
from canonical.requests import Generate
from gateway.web.exchange import Exchange

Batches = AsyncGenerator[Sequence[Event], None]


class _Watch:
    """What is known of a load: how far it is, and when it ended."""

    def __init__(self) -> None:
        self.latest: Progress | None = None
        self.ended: float | None = None
        self.news = asyncio.Event()

    def far(self, progress: Progress) -> None:
        """Take note of a step."""
        self.latest = progress
        self.news.set()

    def ready(self) -> None:
        """The model has the request."""
        self.ended = time.monotonic()
        self.news.set()


def held(exchange: Exchange, id: str) -> bool:
    """Whether the model is loaded in this machine's memory; of another server's nobody tells how long a load took."""
    return any(row.info.id == id and not row.loading for row in exchange.engine.loaded())


async def watched(exchange: Exchange, request: Generate, id: str, reply: ChatStream) -> Batches:
    """The events of the answer, as soon as there are any; until then the client is told how far the load is.

    The stream begins with the first word of a load, so that a failure before has its own status. Where a field may not be
    dropped nothing is told: who is refused for one behind a load is refused with a status, too.
    """
    if exchange.caller.strict:
        return exchange.events(request)
    watch, before, began = _Watch(), held(exchange, id), time.monotonic()
    batches = exchange.events(request, far=watch.far, ready=watch.ready)
    first = asyncio.ensure_future(anext(batches))
    told = False
    try:
        while not first.done() and watch.ended is None:
            news = asyncio.ensure_future(watch.news.wait())
            try:
                await asyncio.wait((first, news), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            watch.news.clear()
            latest, watch.latest = watch.latest, None
            if latest is not None:
                if not told:
                    await exchange.begin(reply.media_type)
                    await exchange.piece(reply.loading())
                    told = True
                await exchange.piece(reply.progress(latest.share))
        if watch.ended is not None and (told or (not before and held(exchange, id))):
            if not told:
                await exchange.begin(reply.media_type)
            frames = b"" if told else reply.loading()
            await exchange.piece(frames + reply.loaded(watch.ended - began) + reply.processing())
        await asyncio.wait((first,))
    except BaseException:
        first.cancel()
        await asyncio.wait((first,))
        await batches.aclose()
        raise
    return _with_first(first, batches)


async def _with_first(first: asyncio.Future[Sequence[Event]], batches: Batches) -> Batches:
    try:
        yield await first
        async for batch in batches:
            yield batch
    finally:
        await batches.aclose()
