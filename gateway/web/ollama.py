"""The URL map of the Ollama dialect."""

from __future__ import annotations

from msgspec import structs

from adapters.dialect import Ask, LoadAsk
from adapters.ollama import serve
from adapters.ollama.names import short
from canonical.errors import BackendTimeout, BackendUnavailable, Forbidden, ModelNotFound, Unauthorized, Unsupported
from canonical.models import OF_TEXT, Capability, ModelDetails
from gateway.web import ollama_models
from gateway.web.answering import answer, embed, load
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VERSION = "0.33.0"
"""The Ollama release whose API this is: clients parse it as dotted integers and demand recent ones."""

VOICE = Voice("ollama", b"application/json; charset=utf-8", serve.error_status, serve.error_body)
_COPILOT = b"GitHubCopilotChat/"
"""Shows a model under its base name, and with Ollama that is the one it asked for."""
_EMBED_VOICE = structs.replace(VOICE, error_body=serve.embed_error_body)
PREFIXES = ("/api/",)


async def _root(exchange: Exchange) -> None:
    await exchange.reply(200, b"text/plain; charset=utf-8", b"Ollama is running")


async def _version(exchange: Exchange) -> None:
    await exchange.json(serve.version_reply(VERSION))


async def _chat(exchange: Exchange) -> None:
    await _answer_or_load(exchange, serve.read_chat(await exchange.body()), "/api/chat")


async def _generate(exchange: Exchange) -> None:
    ask = serve.read_generate(await exchange.body())
    try:
        await _answer_or_load(exchange, ask, "/api/generate")
    except Unsupported as error:
        # A prompt is a turn of a conversation here, which is not what its client asked for.
        words = error.message.replace('" does not support chat', '" does not support generate')
        raise Unsupported(words, param=error.param, code=error.code) from error


async def _answer_or_load(exchange: Exchange, ask: Ask | LoadAsk, path: str) -> None:
    if isinstance(ask, Ask):
        await answer(exchange, ask, path)
    else:
        await load(exchange, ask)


async def _embed(exchange: Exchange) -> None:
    exchange.voice = _EMBED_VOICE
    await embed(exchange, serve.read_embed(await exchange.body()), "/api/embed")


async def _embeddings(exchange: Exchange) -> None:
    exchange.voice = _EMBED_VOICE
    await embed(exchange, serve.read_embeddings(await exchange.body()), "/api/embeddings")


async def _tags(exchange: Exchange) -> None:
    """All kinds of models only for who says so: Ollama's clients take all that is listed for one to talk to."""
    able = frozenset(Capability) if b"kinds=all" in exchange.scope["query_string"].split(b"&") else OF_TEXT
    await exchange.json(serve.tags_reply(list(await exchange.engine.models(able))))


async def _ps(exchange: Exchange) -> None:
    await exchange.json(serve.ps_reply(await exchange.engine.residents()))


async def _show(exchange: Exchange) -> None:
    ask = serve.read_show(await exchange.body())
    try:
        details = await exchange.engine.details(ask.name, verbose=ask.verbose)
    except ModelNotFound as error:
        raise ModelNotFound(f"model '{short(ask.name)}' not found", param="model") from error
    except (BackendUnavailable, BackendTimeout):
        # Some clients ask about each model of the list, and lose it all by one failure.
        details = ModelDetails(info=await exchange.engine.model(ask.name))
    agent = next((value for name, value in exchange.scope["headers"] if name == b"user-agent"), b"")
    await exchange.json(serve.show_reply(details, ask.verbose, ask.name if agent.startswith(_COPILOT) else ""))


async def _me(exchange: Exchange) -> None:
    """Nobody signs in here. Command lines that ask take a 401 for that, and ask no further without an address in it."""
    await exchange.body()
    raise Unauthorized("unauthorized")


async def _signed_out(exchange: Exchange) -> None:
    await exchange.body()
    await exchange.json(b"{}")


async def _status(exchange: Exchange) -> None:
    await exchange.json(serve.status_reply())


async def _recommendations(exchange: Exchange) -> None:
    await exchange.json(serve.recommendations_reply())


async def _no_cloud(exchange: Exchange) -> None:
    await exchange.body()
    raise Forbidden(
        "ollama cloud is disabled: this gateway asks no vendor's servers for what its config.yaml does not name"
    )


ROUTES: dict[str, dict[str, Handler]] = {
    "/": {"GET": _root, "HEAD": _root},
    "/api/version": {"GET": _version, "HEAD": _version},
    "/api/tags": {"GET": _tags, "HEAD": _tags},
    "/api/ps": {"GET": _ps},
    "/api/show": {"POST": _show},
    "/api/chat": {"POST": _chat},
    "/api/generate": {"POST": _generate},
    "/api/embed": {"POST": _embed},
    "/api/embeddings": {"POST": _embeddings},
    "/api/me": {"POST": _me},
    "/api/signout": {"POST": _signed_out},
    "/api/user/keys/{key:path}": {"DELETE": _signed_out},
    "/api/status": {"GET": _status},
    "/api/experimental/model-recommendations": {"GET": _recommendations},
    "/api/experimental/web_search": {"POST": _no_cloud},
    "/api/experimental/web_fetch": {"POST": _no_cloud},
    **ollama_models.ROUTES,
}
