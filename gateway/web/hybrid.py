"""The URL map of the dialect ``hybrid``: chats of text and pictures, and control of what is loaded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from adapters.hybrid import serve, wire
from canonical.errors import GatewayError, ModelNotFound, NoModelLoaded
from canonical.models import CHATS, Capability
from gateway.engine import Engine
from gateway.router import lacks
from gateway.web.answering import answer
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("hybrid", b"application/json; charset=utf-8", serve.error_status, serve.error_body)
"""Windows PowerShell, in which this API's examples are written, reads JSON as Latin-1 where nothing else is said."""
PREFIXES = ("/chat", "/chat/regular", "/chat/vision", "/chat/stream", "/models/load", "/models/unload", "/help")

Which = Literal["any", "regular", "vision"]
STAYS = -1.0
"""What is loaded by name stays until it is unloaded, or others want its room: nobody says how long here."""

_SEES = CHATS | {Capability.VISION}
_encode = msgspec.json.Encoder().encode

# Chats


def _chat(which: Which, *, stream: bool) -> Handler:
    async def handle(exchange: Exchange) -> None:
        chat = serve.read_chat(await exchange.body(), stream=stream)
        model = chat.model or await _meant(exchange.engine, chat, which)
        async with _explained(exchange.engine, model):
            await answer(exchange, chat.ask(model))

    return handle


async def _meant(engine: Engine, chat: serve.Chat, which: Which) -> str:
    """The model of a request that names none: the route's default, or whatever is loaded and can.

    Raises:
        NoModelLoaded.
        BackendError: there may be one, at a server that does not answer.
    """
    needs = _SEES if which == "vision" or (which == "any" and chat.shows) else CHATS
    usual = engine.leases.usual(needs)
    if usual:
        return usual
    for row in await engine.ready():
        if not row.loading and not lacks(needs, row.info):
            return row.info.id
    raise NoModelLoaded(serve.NO_MODEL, status=503)


@asynccontextmanager
async def _explained(engine: Engine, name: str) -> AsyncIterator[None]:
    """Say of a model that is not found why: it may be at a server that does not answer, and has never told what it has."""
    try:
        yield
    except ModelNotFound as error:
        try:
            await engine.model(name)
        except ModelNotFound:
            raise engine.stranger() or error from None
        raise


# Models


async def loaded(exchange: Exchange) -> bytes:
    """The rows of what is loaded."""
    return serve.rows(await exchange.engine.ready())


async def _models(exchange: Exchange) -> None:
    await exchange.json(await loaded(exchange))


async def _load(exchange: Exchange) -> None:
    asked = serve.read_load(await exchange.body())
    exchange.model = key = asked.model_key

    async def work() -> None:
        engine = exchange.engine
        try:
            async with _explained(engine, key):
                if asked.exclusive:
                    await engine.loads.load_alone(key, STAYS)
                else:
                    await engine.loads.load(key, STAYS)
            info = await engine.model(key)
            resident = next((row for row in await engine.ready() if row.info.id == info.id), None)
        except GatewayError as error:
            await exchange.json(serve.not_loaded_reply(error))
        else:
            await exchange.json(serve.loaded_reply(key, resident))

    await exchange.while_connected(work())


async def _unload(exchange: Exchange) -> None:
    asked = serve.read_unload(await exchange.body())
    exchange.model = asked.model_key or ""

    async def work() -> None:
        if not asked.unload_all and not asked.model_key:
            await exchange.json(serve.not_unloaded_reply(None))
            return
        engine, name = exchange.engine, exchange.model
        try:
            async with _explained(engine, name):
                gone = await engine.loads.free("" if asked.unload_all else name)
        except GatewayError as error:
            await exchange.json(serve.not_unloaded_reply(error))
        else:
            await exchange.json(serve.unloaded_reply(gone))

    await exchange.while_connected(work())


# About


async def _health(exchange: Exchange) -> None:
    unreached = await exchange.engine.unreached()
    backends: dict[str, Literal["ok", "unreachable"]] = {
        name: "ok" if error is None else "unreachable" for name, error in unreached.items()
    }
    await exchange.json(_encode(wire.Health("ok", backends)))


async def _help(exchange: Exchange) -> None:
    from gateway.web.described.hybrid import DESCRIBED

    prefix = exchange.scope["path"].removesuffix("/help")
    routes = [
        wire.Route(method, prefix + path, DESCRIBED[path][method].summary)
        for path, methods in ROUTES.items()
        for method in methods
        if method != "HEAD"
    ]
    summary = "Chats of text and pictures with whatever model is behind, and control of what is loaded"
    await exchange.json(_encode(wire.Help(summary, "/schema", "/openapi.json", routes, list(NOTES))))


NOTES = (
    "messages[].role is one of system, user, assistant; images stand in the user's messages",
    "messages[].images[] takes {data_base64, mime_type?}: JPEG, PNG or WebP, as bare base64 or as a data URL",
    "config takes temperature (0 to 2), maxTokens, topP (0 to 1), presencePenalty and frequencyPenalty (-2 to 2)",
    "without model_key, /chat/regular asks the default chat model, /chat/vision the default vision model",
    "/chat without model_key asks the one or the other, by what it is shown; without a default, what is loaded",
    "a stream is application/x-ndjson: fragments, then one line of type done, or of type error",
    "predicted_tokens is null where nobody counted",
    "exclusive: true unloads all other models first, each when the requests that it has are done",
    "a load or an unload that fails is status 200 with loaded or success false, and says why in error",
)

ROUTES: dict[str, dict[str, Handler]] = {
    "/health": {"GET": _health, "HEAD": _health},
    "/help": {"GET": _help, "HEAD": _help},
    "/models": {"GET": _models, "HEAD": _models},
    "/models/load": {"POST": _load},
    "/models/unload": {"POST": _unload},
    "/chat": {"POST": _chat("any", stream=False)},
    "/chat/stream": {"POST": _chat("any", stream=True)},
    "/chat/regular": {"POST": _chat("regular", stream=False)},
    "/chat/regular/stream": {"POST": _chat("regular", stream=True)},
    "/chat/vision": {"POST": _chat("vision", stream=False)},
    "/chat/vision/stream": {"POST": _chat("vision", stream=True)},
}
