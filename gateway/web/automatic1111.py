"""The URL map of the dialect ``automatic1111``: AUTOMATIC1111's API, for the many applications that speak it.

Its server has one user, one model and one picture at a time. Here each key has its own of these: what it has chosen in the
options, the job that ``progress`` tells of, and the one that ``interrupt`` stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from time import time

from msgspec import structs

from adapters.automatic1111 import asked, serve, wire
from adapters.automatic1111.errors import error_body, error_status
from canonical.errors import GatewayError, ModelNotFound, NotImplementedHere
from canonical.painting import Offer, nearest
from canonical.report import forbidden
from gateway.jobs import Job
from gateway.memory import Machine
from gateway.painting import PAINT, loras, offer, painters
from gateway.web.exchange import Exchange, Handler
from gateway.web.voice import Voice

VOICE = Voice("automatic1111", b"application/json", error_status, error_body)
PREFIXES = ("/sdapi",)
NAME = "automatic1111"
UNFINISHED = ("running", "queued")


async def _txt2img(exchange: Exchange) -> None:
    await _paint(exchange, asked.read_txt2img(await exchange.body()))


async def _img2img(exchange: Exchange) -> None:
    await _paint(exchange, asked.read_img2img(await exchange.body()))


async def _paint(exchange: Exchange, ask: asked.Ask) -> None:
    exchange.model = ask.request.model

    async def work() -> None:
        jobs, caller = exchange.jobs, exchange.caller
        ready = await _ready(exchange, ask)
        job: Job | None = None
        following = jobs.follow(ready.request, owner=caller.owner, priority=caller.priority, dialect=NAME)
        async with aclosing(following) as seen:
            async for job in seen:
                exchange.model = job.request.model
        assert job is not None
        if job.state == "failed":
            raise GatewayError(job.error, status=job.status or 500, code=job.code or None)
        # One that was interrupted has what was done until then.
        pictures = [
            serve.Picture(await jobs.picture(result.name, owner=caller.owner), result.made, result.warnings)
            for result in job.results
        ]
        await exchange.json(serve.generated(ready, job.request, pictures, job.created))

    await exchange.while_connected(work())


async def _ready(exchange: Exchange, ask: asked.Ask) -> asked.Ask:
    """``ask`` with what its key has chosen, and in the names of what there is. Raises Unsupported under strict."""
    chosen, request = _chosen(exchange), ask.request
    model = await _meant(exchange, request.model or chosen.sd_model_checkpoint or "")
    clip_skip = request.clip_skip or asked.clip_skip_of(chosen.CLIP_stop_at_last_layers)
    ask = structs.replace(ask, request=structs.replace(request, model=model, clip_skip=clip_skip))
    given = await _offer(exchange, model)
    if given is not None:
        ask = asked.fitting(ask, given)
    exchange.learn(ask.report)
    if ask.report.dropped and await _is_strict(exchange, model):
        raise forbidden(ask.report, model or NAME)
    return ask


async def _meant(exchange: Exchange, checkpoint: str) -> str:
    """The name of a model, by what a client calls it; one that there is not stays as it is."""
    for name in asked.spellings(checkpoint):
        try:
            await exchange.engine.leases.route(name, PAINT)
        except GatewayError:
            continue
        return name
    return checkpoint


async def _is_strict(exchange: Exchange, model: str) -> bool:
    if exchange.caller.strict:
        return True
    try:
        route = await exchange.engine.leases.route(model, PAINT)
    except GatewayError:
        return False
    return route.entry is not None and route.entry.strict


async def _offer(exchange: Exchange, model: str) -> Offer | None:
    """What a model lets one choose; None where there is none such: whoever takes a job for it says so."""
    try:
        return await offer(exchange.engine, model)
    except GatewayError:
        return None


# The job of the caller's


async def _progress(exchange: Exchange) -> None:
    job = await _current(exchange)
    skips = serve.skips_image(exchange.scope["query_string"])
    await exchange.json(serve.progress(_running(job) if job else None, skip_image=skips))


async def _interrupt(exchange: Exchange) -> None:
    job = await _current(exchange)
    if job is not None:
        await exchange.jobs.cancel(job.id, owner=exchange.caller.owner)
    await exchange.json(b"{}")


async def _skip(exchange: Exchange) -> None:
    job = await _current(exchange)
    if job is not None and job.request.n > 1:
        raise NotImplementedHere(
            "one picture of several cannot be skipped here; POST /sdapi/v1/interrupt stops them all"
        )
    await _interrupt(exchange)


async def _current(exchange: Exchange) -> Job | None:
    """The newest job of the caller's that runs, else the newest that waits."""
    if exchange.gateway.jobs is None:
        return None
    found = await exchange.gateway.jobs.list(owner=exchange.caller.owner, states=UNFINISHED)
    mine = [job for job in found if job.dialect == NAME]
    return next((job for job in mine if job.state == "running"), mine[0] if mine else None)


def _running(job: Job) -> serve.Running:
    waiting = ""
    if job.state == "queued":
        waiting = job.note or (f"{job.position} jobs are before it" if job.position else "it is the next")
    eta = job.estimate
    if eta is None:
        gone = time() - job.started
        eta = gone * (job.total - job.done) / job.done if job.started and job.done else 0.0
    return serve.Running(
        id=job.id,
        created=job.created,
        count=job.request.n,
        index=job.index,
        done=job.done,
        total=job.total,
        eta=eta,
        waiting=waiting,
        preview=job.preview,
    )


# What there is, and what is chosen


def _chosen(exchange: Exchange) -> wire.Choice:
    return exchange.gateway.chosen.get(exchange.caller.owner, wire.Choice())


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models(await painters(exchange.engine)))


async def _chosen_offer(exchange: Exchange) -> Offer | None:
    return await _offer(exchange, _chosen(exchange).sd_model_checkpoint or "")


async def _samplers(exchange: Exchange) -> None:
    await exchange.json(serve.samplers(await _chosen_offer(exchange)))


async def _schedulers(exchange: Exchange) -> None:
    await exchange.json(serve.schedulers(await _chosen_offer(exchange)))


async def _loras(exchange: Exchange) -> None:
    await exchange.json(serve.loras(await loras(exchange.engine)))


async def _options(exchange: Exchange) -> None:
    chosen = _chosen(exchange)
    checkpoint = chosen.sd_model_checkpoint or await _default(exchange)
    await exchange.json(serve.options(structs.replace(chosen, sd_model_checkpoint=checkpoint)))


async def _default(exchange: Exchange) -> str | None:
    try:
        return (await exchange.engine.leases.route("", PAINT)).id
    except GatewayError:
        return None


async def _choose(exchange: Exchange) -> None:
    choice, report = serve.read_options(await exchange.body())
    if choice.sd_model_checkpoint:
        name = await _meant(exchange, choice.sd_model_checkpoint)
        try:
            await exchange.engine.leases.route(name, PAINT)
        except ModelNotFound as error:
            rows = [row.id for row in await painters(exchange.engine)]
            words = error.message + nearest(choice.sd_model_checkpoint, rows)
            raise ModelNotFound(words, param="sd_model_checkpoint") from None
        choice = structs.replace(choice, sd_model_checkpoint=name)
    exchange.learn(report)
    if report.dropped and exchange.caller.strict:
        raise forbidden(report, NAME)
    before = _chosen(exchange)
    exchange.gateway.chosen[exchange.caller.owner] = wire.Choice(
        sd_model_checkpoint=choice.sd_model_checkpoint or before.sd_model_checkpoint,
        CLIP_stop_at_last_layers=choice.CLIP_stop_at_last_layers or before.CLIP_stop_at_last_layers,
    )
    await exchange.json(b"null")


async def _memory(exchange: Exchange) -> None:
    machine = Machine()
    await exchange.json(serve.memory(machine.total, machine.free(graphics=False).ram))


async def _png_info(exchange: Exchange) -> None:
    await exchange.json(serve.png_info(await exchange.body()))


async def _unload(exchange: Exchange) -> None:
    checkpoint = _chosen(exchange).sd_model_checkpoint or await _default(exchange)
    if checkpoint:
        await exchange.engine.loads.unload(checkpoint)
    await exchange.json(b"{}")


async def _tell(exchange: Exchange, *, body: bytes) -> None:
    await exchange.json(body)


async def _not_here(_: Exchange, *, what: str) -> None:
    raise NotImplementedHere(f"this gateway does not {what}")


def _told(body: bytes) -> dict[str, Handler]:
    return _read(partial(_tell, body=body))


def _read(handler: Handler) -> dict[str, Handler]:
    return {"GET": handler, "HEAD": handler}


_NOTHING: Callable[..., dict[str, Handler]] = partial(_told, b"[]")
_DONE: Sequence[str] = (
    "refresh-checkpoints",
    "refresh-embeddings",
    "refresh-loras",
    "refresh-vae",
    "reload-checkpoint",
)
_EMPTY = (
    "extensions",
    "face-restorers",
    "hypernetworks",
    "latent-upscale-modes",
    "prompt-styles",
    "realesrgan-models",
    "script-info",
    "sd-vae",
)
_ABSENT = {
    "extra-batch-images": "enlarge pictures",
    "extra-single-image": "enlarge pictures",
    "interrogate": "describe pictures in this dialect: models that see answer chats",
}

ROUTES: dict[str, dict[str, Handler]] = {
    "/sdapi/v1/txt2img": {"POST": _txt2img},
    "/sdapi/v1/img2img": {"POST": _img2img},
    "/sdapi/v1/progress": _read(_progress),
    "/sdapi/v1/interrupt": {"POST": _interrupt},
    "/sdapi/v1/skip": {"POST": _skip},
    "/sdapi/v1/sd-models": _read(_models),
    "/sdapi/v1/samplers": _read(_samplers),
    "/sdapi/v1/schedulers": _read(_schedulers),
    "/sdapi/v1/loras": _read(_loras),
    "/sdapi/v1/options": {**_read(_options), "POST": _choose},
    "/sdapi/v1/png-info": {"POST": _png_info},
    "/sdapi/v1/memory": _read(_memory),
    "/sdapi/v1/unload-checkpoint": {"POST": _unload},
    "/sdapi/v1/upscalers": _told(serve.upscalers()),
    "/sdapi/v1/embeddings": _told(serve.embeddings()),
    "/sdapi/v1/scripts": _told(serve.scripts()),
    "/sdapi/v1/cmd-flags": _told(serve.flags()),
    **{f"/sdapi/v1/{name}": _NOTHING() for name in _EMPTY},
    **{f"/sdapi/v1/{name}": {"POST": partial(_tell, body=b"null")} for name in _DONE},
    **{f"/sdapi/v1/{name}": {"POST": partial(_not_here, what=what)} for name, what in _ABSENT.items()},
}
