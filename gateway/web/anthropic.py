"""The URL map of the Anthropic dialect. A base URL that wrongly ends in ``/v1`` works too: its clients add their own."""

from __future__ import annotations

from adapters.anthropic import serve
from gateway.web.exchange import Exchange, Handler, Voice

VOICE = Voice("anthropic", b"application/json", serve.error_status, serve.error_body, b"request-id")
PREFIXES = ("/v1/messages", "/v1/v1/", "/v1/complete")


async def _messages(exchange: Exchange) -> None:
    await exchange.answer(serve.read_messages(await exchange.body()), "/messages")


async def _count(exchange: Exchange) -> None:
    await exchange.count(serve.read_count(await exchange.body()))


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(list(await exchange.engine.models())))


async def _model(exchange: Exchange) -> None:
    name = str(exchange.scope["path_params"]["model"]).lstrip("/")
    await exchange.json(serve.model_reply(await exchange.engine.model(name)))


_PATHS: dict[str, dict[str, Handler]] = {
    "/messages": {"POST": _messages},
    "/messages/count_tokens": {"POST": _count},
}

ROUTES: dict[str, dict[str, Handler]] = {
    **{f"{base}{path}": methods for base in ("/v1", "/v1/v1") for path, methods in _PATHS.items()},
    "/v1/models": {"GET": _models, "HEAD": _models},
    "/v1/models/{model:path}": {"GET": _model, "HEAD": _model},
}
