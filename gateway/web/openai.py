"""The URL map of the OpenAI dialect. Some users leave ``/v1`` out of the base URL: the bare paths answer too."""

from __future__ import annotations

from adapters.openai import serve
from canonical.errors import NotImplementedHere
from canonical.models import OF_TEXT, Capability
from gateway.web import openai_images, responses
from gateway.web.answering import answer, embed, rerank
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("openai", b"application/json", serve.error_status, serve.error_body)
PREFIXES = ("/v1/", "/v2/", "/chat/", "/completions", "/embeddings", "/images/", "/models", "/rerank", "/responses")

LISTED = OF_TEXT | {Capability.PAINT}
"""What its API can be asked for: its own list has models that paint, too."""


async def _chat(exchange: Exchange) -> None:
    await answer(exchange, serve.read_chat(await exchange.body()), "/chat/completions")


async def _completion(exchange: Exchange) -> None:
    await answer(exchange, serve.read_completion(await exchange.body()), "/completions")


async def _embeddings(exchange: Exchange) -> None:
    await embed(exchange, serve.read_embeddings(await exchange.body()), "/embeddings")


async def _rerank(exchange: Exchange) -> None:
    await rerank(exchange, serve.read_rerank(await exchange.body()))


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(list(await exchange.engine.models(LISTED))))


async def _model(exchange: Exchange) -> None:
    name = str(exchange.scope["path_params"]["model"]).lstrip("/")
    await exchange.json(serve.model_reply(await exchange.engine.model(name)))


async def _not_here(exchange: Exchange) -> None:
    raise NotImplementedHere(f"{exchange.scope['path']} is not served by this gateway yet")


_PATHS: dict[str, dict[str, Handler]] = {
    "/chat/completions": {"POST": _chat},
    "/completions": {"POST": _completion},
    "/embeddings": {"POST": _embeddings},
    "/rerank": {"POST": _rerank},
    "/reranking": {"POST": _rerank},
    "/models": {"GET": _models, "HEAD": _models},
    "/models/{model:path}": {"GET": _model, "HEAD": _model, "DELETE": _not_here},
    "/moderations": {"POST": _not_here},
    **responses.PATHS,
}

ROUTES = {f"{base}{path}": methods for base in ("/v1", "") for path, methods in _PATHS.items()}
ROUTES.update(openai_images.ROUTES)
ROUTES["/v2/rerank"] = {"POST": _rerank}  # Cohere's
