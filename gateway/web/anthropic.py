"""The URL map of the Anthropic dialect. A base URL that wrongly ends in ``/v1`` works too: its clients add their own."""

from __future__ import annotations

import re

from msgspec import structs

from adapters.anthropic import serve
from canonical.requests import Generate
from gateway.web.answering import answer, count
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("anthropic", b"application/json", serve.error_status, serve.error_body, b"request-id", b"req_")
PREFIXES = ("/v1/messages", "/v1/v1/", "/v1/complete")


BETAS = b"anthropic-beta"
"""Names of trial features. A server of the vendor's refuses the fields of one that is not named."""
BETAS_LIMIT = 2000

_NAMES = re.compile(rb"[A-Za-z0-9._:-]+(?:[ \t]*,[ \t]*[A-Za-z0-9._:-]+)*")


async def _messages(exchange: Exchange) -> None:
    ask = serve.read_messages(await exchange.body())
    requests = tuple(_with_betas(exchange, request) for request in ask.requests)
    await answer(exchange, structs.replace(ask, requests=requests), "/messages")


async def _count(exchange: Exchange) -> None:
    ask = serve.read_count(await exchange.body())
    await count(exchange, structs.replace(ask, request=_with_betas(exchange, ask.request)))


def _with_betas(exchange: Exchange, request: Generate) -> Generate:
    """The request with the trial features that its client names, for a server of this dialect; odd names are left out."""
    named = b",".join(value.strip() for name, value in exchange.scope["headers"] if name == BETAS)
    if not named or len(named) > BETAS_LIMIT or not _NAMES.fullmatch(named):
        return request
    return structs.replace(request, origin=structs.replace(request.origin, headers=(BETAS + b": " + named,)))


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
