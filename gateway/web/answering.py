"""What a route does once its request is read: generate, embed, rank, count or load, and send what comes.

A stream's status line waits for its first event, so that failures until then are real statuses; after it they are one
in-band frame. How bytes get to the client is the exchange's business.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from adapters.dialect import Ask, CountAsk, EmbedAsk, Encoder, LoadAsk, RerankAsk, Stamp
from canonical.errors import BackendError, GatewayError
from canonical.events import Completion, Event, Finished, fold
from canonical.models import Capability
from canonical.requests import Embed, Generate
from gateway.router import check_needs
from gateway.web.caller import in_body
from gateway.web.exchange import Exchange

Opening = Callable[[Generate], Awaitable[AsyncGenerator[Sequence[Event], None]]]

_REASONING = frozenset({Capability.REASONING})
REPLY_LIMIT = 64 * 1024 * 1024
"""Characters of one whole answer."""


async def answer(exchange: Exchange, ask: Ask, path: str = "", *, opening: Opening | None = None) -> None:
    """Generate, and send what comes: frame by frame, or folded into one body.

    ``path`` is the one of the dialect, where a model's own server may answer it in its own bytes. ``opening`` as in ``stream``.
    """
    exchange.model = ask.requests[0].model
    stamp = Stamp(exchange.id, time.time_ns)
    await exchange.while_connected(
        stream(exchange, ask.requests, ask.encoder(stamp), opening=opening, path=path)
        if ask.stream
        else _whole(exchange, ask, stamp, path, opening)
    )


async def embed(exchange: Exchange, ask: EmbedAsk, path: str = "") -> None:
    """Make vectors, and send them whole. ``path`` as in ``answer``."""
    exchange.model = ask.request.model

    async def work() -> None:
        if await _relayed(exchange, ask.request, path, streamed=False):
            return
        vectors = await exchange.engine.embed(ask.request, strict=exchange.caller.strict, tell=exchange.learn)
        await exchange.json(ask.whole(vectors))

    await exchange.while_connected(work())


async def rerank(exchange: Exchange, ask: RerankAsk) -> None:
    """Rank documents, and send the ranking whole."""
    exchange.model = ask.request.model

    async def work() -> None:
        ranking = await exchange.engine.rerank(ask.request, strict=exchange.caller.strict, tell=exchange.learn)
        await exchange.json(ask.whole(ranking, Stamp(exchange.id, time.time_ns)))

    await exchange.while_connected(work())


async def count(exchange: Exchange, ask: CountAsk) -> None:
    """Count the tokens of a prompt."""
    exchange.model = ask.request.model

    async def work() -> None:
        await exchange.json(ask.whole(await exchange.engine.count(exchange.owned(ask.request))))

    await exchange.while_connected(work())


async def load(exchange: Exchange, ask: LoadAsk) -> None:
    """Load a model, or unload it when its keep-alive is 0."""
    wish = ask.request
    exchange.model = wish.model

    async def work() -> None:
        if wish.keep_alive == 0:
            await exchange.engine.loads.unload(wish.model)
        else:
            if wish.think not in {None, "off"}:
                # Command lines load with what they are going to ask, and tell of a refusal before they show a prompt.
                check_needs(wish.model, _REASONING, await exchange.engine.model(wish.model))
            await exchange.engine.loads.load(wish.model, wish.keep_alive, wish.load)
        await exchange.json(ask.whole(Stamp(exchange.id, time.time_ns)))

    await exchange.while_connected(work())


async def _relayed(exchange: Exchange, request: Generate | Embed, path: str, *, streamed: bool) -> bool:
    """Send the bytes of the model's own server, where the configuration wants it so; whether it does."""
    if not path or not exchange.engine.relays:
        return False
    pieces = exchange.engine.relay(request, path, tell=exchange.learn if exchange.caller.report else None)
    begun = False
    try:
        async for media_type, piece in pieces:
            if not streamed:
                await exchange.reply(200, media_type.encode(), piece, exchange.told())
                return True
            if not begun:
                await exchange.begin(media_type)
                begun = True
            if piece:
                await exchange.piece(piece)
    finally:
        await pieces.aclose()
    if begun:
        await exchange.end()
    return begun


async def _whole(exchange: Exchange, ask: Ask, stamp: Stamp, path: str, opening: Opening | None) -> None:
    if await _relayed(exchange, ask.requests[0], path, streamed=False):
        return
    completions = [await completed(exchange, request, opening) for request in ask.requests]
    await exchange.json(ask.whole(completions, stamp))


async def completed(exchange: Exchange, request: Generate, opening: Opening | None = None) -> Completion:
    """The whole of an answer; ``opening`` as in ``stream``."""
    events: list[Event] = []
    size = 0
    batches = exchange.events(request) if opening is None else await opening(request)
    try:
        async for batch in batches:
            events.extend(batch)
            size += sum(len(getattr(event, "text", "") or getattr(event, "arguments", "")) for event in batch)
            if size > REPLY_LIMIT:
                raise BackendError(f"the answer has more than {REPLY_LIMIT} characters")
    finally:
        await batches.aclose()
    completion = fold(events)
    if completion.usage is not None:
        exchange.tokens += completion.usage.completion
    return completion


async def pour(exchange: Exchange, media_type: str, frames: AsyncIterator[bytes]) -> None:
    """Send a stream that is made elsewhere, and that words its own failures."""
    try:
        async for piece in frames:
            if not exchange.status:
                await exchange.begin(media_type)
            await exchange.piece(piece)
    except GatewayError:
        if not exchange.status:
            raise
    if not exchange.status:
        await exchange.begin(media_type)
    await exchange.end()


async def stream(
    exchange: Exchange,
    requests: Sequence[Generate],
    encoder: Encoder,
    closing: Callable[[], Awaitable[None]] | None = None,
    *,
    opening: Opening | None = None,
    path: str = "",
) -> None:
    """Generate, a choice a request, and send each frame as it comes.

    ``opening`` gives the events of each request, and may begin the stream; ``closing`` is done before the last frames go.
    """
    try:
        if await _relayed(exchange, requests[0], path, streamed=True):
            return
        last = b""
        for choice, request in enumerate(requests):
            if last:
                await exchange.piece(last)
            batches = exchange.events(request) if opening is None else await opening(request)
            last = await _choice(exchange, encoder, choice, batches)
        if closing is not None:
            await closing()
        last += encoder.finish()
        if exchange.report is not None and exchange.caller.report == "body":
            last = in_body(exchange.report, last, encoder.media_type.encode())
        await exchange.end(last)
    except BaseException as error:  # noqa: BLE001  it is told or raised there
        await exchange.break_off(error, encoder.fail)


async def _choice(
    exchange: Exchange, encoder: Encoder, choice: int, batches: AsyncGenerator[Sequence[Event], None]
) -> bytes:
    """Send one choice; returns its last frames, which are not sent yet."""
    feed, send = encoder.feed, exchange.send  # what is done for each piece is written out: it is the hot path
    frames = b""
    try:
        async for batch in batches:
            frames = feed(batch[0], choice) if len(batch) == 1 else b"".join([feed(event, choice) for event in batch])
            if not exchange.status:
                await exchange.begin(encoder.media_type)
            last = batch[-1]
            if type(last) is Finished:
                if last.usage is not None:
                    exchange.tokens += last.usage.completion
            elif frames:
                await send({"type": "http.response.body", "body": frames, "more_body": True})
    finally:
        await batches.aclose()
    return frames
