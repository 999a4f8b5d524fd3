"""The URL map of translation in the dialect ``brenda``."""

from __future__ import annotations

from adapters.brenda import translation
from gateway.translating import translated, ways_of
from gateway.web.exchange import Exchange, Handler


async def _languages(exchange: Exchange) -> None:
    ways = await ways_of(exchange.engine)
    await exchange.json(translation.languages_reply({source: ways.ends(source) for source in ways.sources}))


async def _translate(exchange: Exchange) -> None:
    question = translation.read_translate(await exchange.body())

    async def work() -> None:
        answer = await translated(exchange.engine, question.request)
        exchange.model = "+".join(answer.models)
        await exchange.json(translation.translated_reply(question, answer))

    await exchange.while_connected(work())


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/translation/languages": {"GET": _languages, "HEAD": _languages},
    "/v1/translation/translate": {"POST": _translate},
}
