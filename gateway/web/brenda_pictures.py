"""What Brenda's dialect tells of pictures: how well labels fit one, and the text in it."""

from __future__ import annotations

from adapters.brenda import pictures
from gateway.web.exchange import Exchange, Handler


async def _analyze(exchange: Exchange) -> None:
    question = pictures.read_analyze(await exchange.body())
    exchange.model = question.model

    async def work() -> None:
        await exchange.json(pictures.analysis(question.labels, await exchange.engine.match(question)))

    await exchange.while_connected(work())


async def _ocr(exchange: Exchange) -> None:
    question = pictures.read_ocr(await exchange.body())
    exchange.model = question.model

    async def work() -> None:
        await exchange.json(pictures.reading(await exchange.engine.read(question)))

    await exchange.while_connected(work())


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/images/analyze": {"POST": _analyze},
    "/v1/images/ocr": {"POST": _ocr},
}
