"""The URL map of the dialect ``libretranslate``: LibreTranslate's API, for the clients that it has."""

from __future__ import annotations

from functools import partial

from adapters.libretranslate import serve
from adapters.libretranslate.bodies import read_fields
from adapters.libretranslate.errors import error_body, error_status
from backends import threads
from canonical.errors import Forbidden
from gateway.translating import detected, translated, ways_of
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("libretranslate", b"application/json", error_status, error_body)
PREFIXES = ("/translate", "/languages", "/detect", "/frontend/settings", "/suggest")
LONG = 20_000
"""Bytes from which on a body is read beside the event loop."""


async def _translate(exchange: Exchange) -> None:
    body = await exchange.body()
    kind, query = _content_type(exchange), exchange.scope["query_string"]
    characters = exchange.engine.characters

    async def work() -> None:
        def read() -> serve.Question:
            return serve.read_translate(read_fields(kind, body, query), characters)

        # HTML is taken apart, and millions of characters of it take their time.
        question = await threads.call(read, name="html") if len(body) > LONG else read()
        answer = await translated(exchange.engine, question.request)
        exchange.model = "+".join(answer.models)
        write = partial(serve.translated_reply, question, answer)
        await exchange.json(await threads.call(write, name="html") if len(body) > LONG else write())

    await exchange.while_connected(work())


async def _detect(exchange: Exchange) -> None:
    body = await exchange.body()
    kind, query = _content_type(exchange), exchange.scope["query_string"]

    async def work() -> None:
        def read() -> tuple[str, ...]:
            return serve.read_detect(read_fields(kind, body, query))

        texts = await threads.call(read, name="form") if len(body) > LONG else read()
        await exchange.json(serve.detected_reply(await detected(exchange.engine, texts)))

    await exchange.while_connected(work())


async def _languages(exchange: Exchange) -> None:
    await exchange.json(serve.languages_reply(await _ends(exchange)))


async def _settings(exchange: Exchange) -> None:
    keys = bool(exchange.caller.owner)
    reply = serve.settings_reply(await _ends(exchange), characters=exchange.engine.characters, keys=keys)
    await exchange.json(reply)


async def _health(exchange: Exchange) -> None:
    await exchange.json(serve.health_reply())


async def _suggest(_: Exchange) -> None:
    raise Forbidden("Suggestions are disabled on this server.")


async def _files(_: Exchange) -> None:
    raise Forbidden("Files translation are disabled on this server.")


async def _ends(exchange: Exchange) -> dict[str, list[str]]:
    ways = await ways_of(exchange.engine)
    return {code: sorted(ways.ends(code)) for code in ways.codes}


def _content_type(exchange: Exchange) -> bytes:
    return next((value for name, value in exchange.scope["headers"] if name == b"content-type"), b"")


ROUTES: dict[str, dict[str, Handler]] = {
    "/translate": {"POST": _translate},
    "/detect": {"POST": _detect},
    "/languages": {"GET": _languages, "HEAD": _languages},
    "/frontend/settings": {"GET": _settings, "HEAD": _settings},
    "/health": {"GET": _health, "HEAD": _health},
    "/suggest": {"POST": _suggest},
    "/translate_file": {"POST": _files},
}
