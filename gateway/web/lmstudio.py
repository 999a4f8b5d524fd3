"""The URL map of LM Studio's REST: ``/api/v0`` and ``/api/v1``. Its OpenAI and Anthropic routes are those dialects'."""

from __future__ import annotations

import time

from msgspec import structs

from adapters.dialect import Ask, Stamp
from adapters.lmstudio import serve
from adapters.openai import serve as openai
from canonical.errors import (
    InvalidRequest,
    ModelNotFound,
    NotFound,
    NotImplementedHere,
    Unsupported,
)
from canonical.events import Finished
from canonical.models import Capability, LoadedModel
from canonical.report import Report, forbidden
from gateway.downloads import Download
from gateway.router import check_needs
from gateway.store import Row
from gateway.web.answering import answer, embed, stream
from gateway.web.exchange import Exchange, Handler
from gateway.web.keeping import can_keep, keep, said_before
from gateway.web.loading import held, watched
from gateway.web.voice import Voice

VOICE = Voice("lmstudio", b"application/json", serve.error_status, serve.error_body, stray=serve.stray)
_OLD_VOICE = structs.replace(VOICE, error_status=openai.error_status, error_body=openai.error_body)
"""Errors of OpenAI's shapes are OpenAI's."""
PREFIXES = ("/api/v0/", "/api/v1/")

_THINKS = frozenset({Capability.REASONING})

# Chats that are kept


async def _chat(exchange: Exchange) -> None:
    chat = serve.read_chat(await exchange.body())
    exchange.model = chat.model
    await exchange.while_connected(_respond(exchange, chat))


async def _respond(exchange: Exchange, chat: serve.Chat) -> None:
    info = await exchange.engine.model(chat.model)
    if chat.think not in {None, "off"}:
        try:
            check_needs(chat.model, _THINKS, info)
        except Unsupported as error:
            raise Unsupported(error.message, param="reasoning") from error
    history, _ = await said_before(exchange, chat.previous)
    request = chat.asked(history)
    store = await can_keep(exchange, chat.stored)
    reply = chat.answer(Stamp(exchange.id, time.time_ns), instance=info.id, store=store)

    async def settle() -> None:
        if reply.store:
            reply.store = await keep(exchange, _row(exchange, chat, reply), chat.stored)

    if chat.stream:
        await stream(
            exchange, (request,), reply, settle, opening=lambda asked: watched(exchange, asked, info.id, reply)
        )
        return
    before = held(exchange, info.id)
    batches = exchange.events(request)
    try:
        async for batch in batches:
            for event in batch:
                reply.feed(event)
                if type(event) is Finished:
                    if event.usage is not None:
                        exchange.tokens += event.usage.completion
                    if event.timings is not None and event.timings.load and not before and held(exchange, info.id):
                        reply.loaded(event.timings.load / 1e9)
    finally:
        await batches.aclose()
    await settle()
    await exchange.json(reply.body())


def _row(exchange: Exchange, chat: serve.Chat, reply: serve.ChatStream) -> Row:
    return Row(
        id=reply.id,
        owner=exchange.caller.owner,
        previous=chat.previous,
        status=reply.status,
        input=chat.kept(exchange.id),
        object=reply.kept(),
    )


# Models


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(await exchange.engine.models(), _resident(exchange)))


async def _load(exchange: Exchange) -> None:
    question = serve.read_load(await exchange.body())
    exchange.model = question.model
    if question.lost and exchange.caller.strict:
        raise forbidden(Report(dropped=question.lost), question.model)

    async def work() -> None:
        info = await exchange.engine.model(question.model)
        began = time.monotonic()
        await exchange.engine.loads.load(question.model, question.keep_alive, question.options)
        took = time.monotonic() - began
        resident = _resident(exchange).get(info.id)
        exchange.learn(_load_report(question, resident))
        await exchange.json(serve.loaded_reply(info, resident, took, echo=question.echo))

    await exchange.while_connected(work())


def _load_report(question: serve.LoadQuestion, resident: LoadedModel | None) -> Report:
    """What became of a load's fields, by what is known of the loaded model: its context may be longer than was asked."""
    dropped = list(question.lost)
    honoured: list[str] = ["ttl"] if question.keep_alive is not None else []
    context, batch = (0, 0) if resident is None else (resident.context_length, resident.batch)
    for name, figure in question.asked.items():
        has = context >= figure if name == "context_length" else batch == figure
        (honoured if has else dropped).append(name)
    return Report(honoured=tuple(honoured), dropped=tuple(dropped))


async def _unload(exchange: Exchange) -> None:
    instance = serve.read_unload(await exchange.body())
    exchange.model = instance

    async def work() -> None:
        await exchange.engine.loads.unload(instance)
        await exchange.json(serve.unloaded_reply(instance))

    await exchange.while_connected(work())


async def _download(exchange: Exchange) -> None:
    name = serve.read_download(await exchange.body())
    exchange.must_manage()
    exchange.model = name
    try:
        await exchange.engine.model(name)
    except ModelNotFound:
        pass
    else:
        await exchange.json(serve.job_reply(serve.DownloadState(status="already_downloaded")))
        return

    async def work() -> None:
        download = await exchange.gateway.downloads.begin(name, owner=exchange.caller.owner)
        if isinstance(download.error, (ModelNotFound, InvalidRequest, NotImplementedHere)):
            raise download.error
        await exchange.json(serve.job_reply(_state(download)))

    await exchange.while_connected(work())


async def _download_status(exchange: Exchange) -> None:
    id = str(exchange.scope["path_params"]["job_id"])
    download = exchange.gateway.downloads.get(id, owner=exchange.caller.owner)
    if download is None:
        raise NotFound(f"Job {id[:80]!r} not found", param="job_id", code=serve.JOB_NOT_FOUND)
    await exchange.json(serve.job_reply(_state(download)))


def _state(download: Download) -> serve.DownloadState:
    return serve.DownloadState(
        status="downloading" if download.running else "completed" if download.error is None else "failed",
        job=download.id,
        started=download.started,
        ended=download.ended,
        total=download.total,
        completed=download.completed,
        speed=download.speed,
        now=time.time(),
        error=download.error,
    )


def _resident(exchange: Exchange) -> serve.Resident:
    """What is loaded, here or at another server, by its name."""
    return {row.info.id: row for row in exchange.engine.loaded(elsewhere=True) if not row.loading}


# OpenAI's shapes with figures


async def _old_chat(exchange: Exchange) -> None:
    exchange.voice = _OLD_VOICE
    await _with_stats(exchange, openai.read_chat(await exchange.body()))


async def _old_completion(exchange: Exchange) -> None:
    exchange.voice = _OLD_VOICE
    await _with_stats(exchange, openai.read_completion(await exchange.body()))


async def _with_stats(exchange: Exchange, ask: Ask) -> None:
    """Never as the model's own server says it: that may have no figures."""
    info = await exchange.engine.model(ask.requests[0].model)
    await answer(exchange, serve.with_stats(ask, info))


async def _old_embeddings(exchange: Exchange) -> None:
    exchange.voice = _OLD_VOICE
    await embed(exchange, openai.read_embeddings(await exchange.body()))


async def _old_models(exchange: Exchange) -> None:
    exchange.voice = _OLD_VOICE
    await exchange.json(serve.old_models_reply(await exchange.engine.models(), _resident(exchange)))


async def _old_model(exchange: Exchange) -> None:
    exchange.voice = _OLD_VOICE
    name = str(exchange.scope["path_params"]["model"]).lstrip("/")
    info = await exchange.engine.model(name)
    if not serve.listed(info):
        raise ModelNotFound(f"model '{name}' not found", param="model")  # its SDKs break off at any third type
    await exchange.json(serve.old_model_reply(info, _resident(exchange)))


ROUTES: dict[str, dict[str, Handler]] = {
    "/api/v0/models": {"GET": _old_models, "HEAD": _old_models},
    "/api/v0/models/{model:path}": {"GET": _old_model, "HEAD": _old_model},
    "/api/v0/chat/completions": {"POST": _old_chat},
    "/api/v0/completions": {"POST": _old_completion},
    "/api/v0/embeddings": {"POST": _old_embeddings},
    "/api/v1/chat": {"POST": _chat},
    "/api/v1/models": {"GET": _models, "HEAD": _models},
    "/api/v1/models/load": {"POST": _load},
    "/api/v1/models/unload": {"POST": _unload},
    "/api/v1/models/download": {"POST": _download},
    "/api/v1/models/download/status/{job_id:str}": {"GET": _download_status},
}
