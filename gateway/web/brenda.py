"""The URL map of the dialect ``brenda``, a French API: chats of sessions, loads that are watched, pictures, translation.

A session is a header. Its current model is the one that it has loaded or chatted with last; chats that name none go there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import structs

from adapters.brenda import serve
from canonical.errors import (
    InvalidRequest,
    ModelNotFound,
    NoModelLoaded,
    NoRoute,
    StorageFailed,
)
from canonical.events import Event
from canonical.models import CHATS
from canonical.requests import Generate
from gateway.router import lacks
from gateway.sessions import SessionId
from gateway.web import brenda_painting, brenda_pictures, brenda_translation
from gateway.web.answering import answer
from gateway.web.brenda_events import tell
from gateway.web.exchange import Exchange, Handler
from gateway.web.in_session import in_session, sent, session, sessions_of, told
from gateway.web.voice import Voice

VOICE = Voice("brenda", b"application/json", serve.error_status, serve.error_body, also=told)
_LOAD_VOICE = structs.replace(VOICE, json_type=serve.LoadStream.media_type.encode(), error_body=serve.LoadStream.fail)
"""Whoever watches a load reads events, and finds an error among them, whatever the status."""
PREFIXES = ("/v1/session", "/v1/stop", "/v1/images/", "/v1/translation/")

PATIENCE = 2.0
"""Seconds that an answer waits at most for its session to be kept."""
_LOAD = "/load"


async def _chat(exchange: Exchange) -> None:
    mine, sessions = session(exchange), sessions_of(exchange)
    chat = serve.read_chat(await exchange.body(), system=sessions.system)
    with sessions.generating(mine) as generation:
        model = chat.model or await sessions.model(mine)
        if not model:
            raise NoModelLoaded(
                "no model is loaded: name one in 'model', or load one by POST /v1/models/{model}/load", param="model"
            )

        async def opening(request: Generate) -> AsyncGenerator[Sequence[Event], None]:
            batches = exchange.events(request)
            return generation.read(_chosen(exchange, mine, model, batches) if chat.model else batches)

        await answer(exchange, chat.ask(model), opening=opening)


async def _chosen(
    exchange: Exchange, mine: SessionId, model: str, batches: AsyncGenerator[Sequence[Event], None]
) -> AsyncGenerator[Sequence[Event], None]:
    """The events of an answer, by whose first one its model becomes the session's."""
    first = True
    async with aclosing(batches):
        async for batch in batches:
            if first:
                first = False
                await _choose(exchange, mine, model)
            yield batch


async def _choose(exchange: Exchange, mine: SessionId, model: str) -> None:
    """Whoever names the model each time need not notice where it cannot be kept, or not soon."""
    try:
        async with asyncio.timeout(PATIENCE):
            await sessions_of(exchange).choose(mine, model)
    except StorageFailed as error:
        failed = error
    except TimeoutError:
        failed = StorageFailed("the session cannot be kept now")
    else:
        return
    if exchange.caller.strict:
        raise failed
    exchange.lose("X-Session-ID")


async def _session(exchange: Exchange) -> None:
    mine = session(exchange)
    model = await sessions_of(exchange).model(mine)
    usable = bool(model)
    if model:
        try:
            await exchange.engine.model(model)
        except ModelNotFound:
            usable = False
    await exchange.json(serve.session_reply(mine.id, model, usable=usable))


async def _stop(exchange: Exchange) -> None:
    """Not ``in_session``: an id made here would be nobody's."""
    await exchange.body()
    if not sent(exchange.scope["headers"]):
        raise InvalidRequest("X-Session-ID is missing: it says whose generation is to stop", param="X-Session-ID")
    mine, sessions = session(exchange), sessions_of(exchange)
    if not await sessions.stop(mine) and not await sessions.model(mine):
        raise NoModelLoaded("no model is loaded for this session")
    await exchange.json(serve.stopped_reply())


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(row.id for row in await exchange.engine.models(CHATS)))


async def _load(exchange: Exchange) -> None:
    name = str(exchange.scope["path_params"]["model"]).lstrip("/")
    await exchange.body()
    if not name.endswith(_LOAD):
        raise NoRoute(
            f"no route POST {exchange.scope['path'][:100]}: models are loaded by POST /v1/models/{{model}}/load"
        )
    exchange.model = name = name.removesuffix(_LOAD)
    exchange.voice = _LOAD_VOICE
    await exchange.while_connected(tell(exchange, _loaded(exchange, name), serve.LoadStream))


async def _loaded(exchange: Exchange, name: str) -> AsyncGenerator[bytes, None]:
    """The events of a load, and of the download before it where one is needed."""
    events, engine, mine = serve.LoadStream(), exchange.engine, session(exchange)
    if await engine.library.lacks(name):
        exchange.must_manage()
        async with aclosing(engine.library.pull(name)) as steps:
            async for step in steps:
                yield events.feed(step)
        yield events.end("completed")
    else:
        yield events.end("exists")
    async with aclosing(engine.loads.loading(name)) as steps:
        async for step in steps:
            yield events.feed(step)
    if not lacks(CHATS, await engine.model(name)):  # else a session that chats would lose the model that it chats with
        await sessions_of(exchange).choose(mine, name)
    yield events.end("loaded")


_ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/models": {"GET": _models, "HEAD": _models},
    "/v1/models/{model:path}": {"POST": _load},
    "/v1/chat/completions": {"POST": _chat},
    "/v1/session": {"GET": _session},
    **brenda_painting.ROUTES,
    **brenda_pictures.ROUTES,
    **brenda_translation.ROUTES,
}
ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/stop": {"POST": _stop},
    **{path: {method: in_session(one) for method, one in methods.items()} for path, methods in _ROUTES.items()},
}
