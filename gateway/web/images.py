"""The URL map of the dialect ``images``: pictures as jobs.

A loop of ``curl -f`` takes a 202 for its picture, and ends. So whoever says nothing else and is curl is held until there
is one; others are held as long as they ask to be (``Prefer: wait=N``, ``?wait=N``), and everybody else is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from time import monotonic
from typing import Literal

from msgspec import structs

from adapters.images import asked, serve, wire
from adapters.images.errors import error_body, error_status
from adapters.recipe import DIGEST, header
from canonical.errors import (
    BackendError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    shutting_down,
)
from canonical.media import Blob
from gateway.jobs import Job, Jobs, Result
from gateway.jobs.jobs import JobNotFound
from gateway.painting import loras, offer, painters
from gateway.web.exchange import Exchange, Handler
from gateway.web.holding import ENDLESS, held, watched
from gateway.web.voice import Voice

VOICE = Voice("images", b"application/json", error_status, error_body)
PREFIXES = ("/generate", "/status/", "/image/", "/download/", "/jobs", "/loras")
HEARTBEAT = 15.0
"""Seconds of silence after which a stream gives a sign of life: proxies cut what is silent for a minute."""
RETRY = 5
"""Seconds after which to look again."""
GONE = 410
"""Of a job that was cancelled: its picture will never be there."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEPT = (b"cache-control", b"private, max-age=31536000, immutable")
"""A picture never changes under its name."""


async def _generate(exchange: Exchange) -> None:
    ask = asked.read_generate(await exchange.body())
    exchange.model = ask.request.model

    async def work() -> None:
        jobs, caller = exchange.jobs, exchange.caller
        known = {name: await _known(jobs, name, digest, caller.owner) for name, digest in ask.digests.items()}
        request = structs.replace(ask.request, **known)
        job = await jobs.submit(request, owner=caller.owner, priority=caller.priority, dialect="images")
        await exchange.json(serve.job_reply(job), headers=[_named(job)])

    await exchange.while_connected(work())


async def _known(jobs: Jobs, name: str, digest: str, owner: str) -> Blob:
    """A picture that a recipe tells by its digest."""
    try:
        return await jobs.known(digest.removeprefix(DIGEST), owner=owner)
    except NotFound:
        words = f"{name}: no picture with this digest is kept here for this key; send its bytes"
        raise InvalidRequest(words, param=name) from None


async def _status(exchange: Exchange) -> None:
    wait = asked.read_wait(exchange.scope["query_string"], exchange.scope["headers"]) or 0.0
    job = await _awaited(exchange, wait, lambda job: job.over)
    later = [] if job.over else [_retry(job)]
    await exchange.json(serve.job_reply(job), headers=[_named(job), (b"cache-control", b"no-store"), *later])


# Pictures


async def _image(exchange: Exchange) -> None:
    query, headers = exchange.scope["query_string"], exchange.scope["headers"]
    index, wait = asked.read_index(query), asked.read_wait(query, headers)
    loops = wait is None and exchange.scope["method"] == "GET" and _is_curl(exchange)
    job = await _awaited(
        exchange, ENDLESS if loops else wait or 0.0, lambda job: job.over or _picture(job, index) is not None
    )
    result = _picture(job, index)
    if result is not None:
        told = "attachment" if loops else "inline"
        await _send(exchange, result, told, [_named(job)], whole=_place(exchange, job))
    elif not job.over:
        if loops:
            raise shutting_down()  # a 202 would end the loop with something that is no picture
        headers = [_named(job), (b"cache-control", b"no-store"), _retry(job)]
        await exchange.json(serve.processing_reply(job), 202, headers)
    elif job.state == "done":
        raise NotFound(f"job {job.id} has {len(job.results)} pictures, the first of index 0", param="index")
    else:
        # A generation that failed is not to be tried again by the client's library.
        failed = [(b"x-should-retry", b"false")] if job.state == "failed" else []
        await exchange.json(serve.failed_reply(job), GONE if job.state == "cancelled" else 500, [_named(job), *failed])


async def _download(exchange: Exchange) -> None:
    name = str(exchange.scope["path_params"]["filename"])
    blob = await exchange.jobs.picture(name, owner=exchange.caller.owner)
    await _send_blob(exchange, name, blob, "attachment", [])


def _picture(job: Job, index: int | None) -> Result | None:
    """The picture that is wanted, where it can be given: the first one not before the job is done, another as soon as it is."""
    if index is None and job.state != "done":
        return None
    place = index or 0
    return job.results[place] if place < len(job.results) else None


async def _send(
    exchange: Exchange, result: Result, disposition: str, headers: list[tuple[bytes, bytes]], *, whole: str
) -> None:
    blob = await exchange.jobs.picture(result.name, owner=exchange.caller.owner)
    told = serve.metadata_header(header(blob.data), result.made, whole)
    await _send_blob(exchange, result.name, blob, disposition, [*headers, (b"x-generation-metadata", told)])


async def _send_blob(
    exchange: Exchange, name: str, blob: Blob, disposition: str, headers: list[tuple[bytes, bytes]]
) -> None:
    tag = b'"%b"' % name.encode()
    head = [*headers, (b"etag", tag), _KEPT]
    if any(key == b"if-none-match" and tag in value for key, value in exchange.scope["headers"]):
        await exchange.reply(304, blob.media_type.encode(), b"", head)
        return
    head.append((b"content-disposition", f'{disposition}; filename="{name}"'.encode()))
    await exchange.reply(200, blob.media_type.encode(), blob.data, head)


# Jobs


async def _list(exchange: Exchange) -> None:
    page = asked.read_page(exchange.scope["query_string"])
    after = _checked(page.after) if page.after else ""
    found = await exchange.jobs.list(owner=exchange.caller.owner, states=page.states, limit=page.limit + 1, after=after)
    shown = found[: page.limit]
    following = shown[-1].id if len(found) > page.limit else None
    await exchange.json(serve.jobs_reply(shown, following), headers=[(b"cache-control", b"no-store")])


async def _cancel(exchange: Exchange) -> None:
    job = await exchange.jobs.cancel(_id(exchange), owner=exchange.caller.owner)
    await exchange.json(serve.job_reply(job), headers=[_named(job)])


async def _delete(exchange: Exchange) -> None:
    jobs, id, owner = exchange.jobs, _id(exchange), exchange.caller.owner
    if not (await jobs.get(id, owner=owner)).over:
        await _cancel(exchange)
        return
    await jobs.remove(id, owner=owner)
    await exchange.json(serve.removed_reply(id))


async def _events(exchange: Exchange) -> None:
    previews = asked.wants_previews(exchange.scope["query_string"])
    await exchange.while_connected(_stream(exchange, _id(exchange), previews=previews))


async def _events_head(exchange: Exchange) -> None:
    await exchange.jobs.get(_id(exchange), owner=exchange.caller.owner)
    await exchange.reply(200, b"text/event-stream", b"")


async def _stream(exchange: Exchange, id: str, *, previews: bool) -> None:
    """Each change of a job, up to its end."""
    seen = next((value for name, value in exchange.scope["headers"] if name == b"last-event-id"), b"")
    watch = exchange.jobs.watch(id, owner=exchange.caller.owner)
    shown: Blob | None = None
    last = b""
    quiet = monotonic()
    try:
        async with aclosing(watched(exchange.gateway, watch)) as jobs:
            async for job in jobs:
                if job is None:
                    if monotonic() - quiet < HEARTBEAT:
                        continue
                    frame = b": \n\n"
                elif job.over and seen == serve.event_id(job):
                    # It has been told all: with this status browsers do not come back again.
                    await exchange.reply(204, b"text/event-stream", b"")
                    return
                else:
                    preview = job.preview if previews and job.preview is not shown else None
                    shown = job.preview
                    frame = serve.event(job, preview, job.index)
                    if frame == last:  # what has changed is nothing that is told
                        continue
                    last = frame
                if not exchange.status:
                    await exchange.begin("text/event-stream")
                await exchange.piece(frame)
                quiet = monotonic()
        if not exchange.status:
            await exchange.begin("text/event-stream")
        await exchange.end()
    except BaseException as error:  # noqa: BLE001  it is told or raised there
        await exchange.break_off(error, lambda error: b"event: error\ndata: %b\n\n" % error_body(error))


# Waiting


async def _awaited(exchange: Exchange, seconds: float, enough: Callable[[Job], bool]) -> Job:
    """The request's job, as soon as it is ``enough``, or as it is when the time is over or the gateway is to end."""
    jobs, id, owner = exchange.jobs, _id(exchange), exchange.caller.owner
    job = await jobs.get(id, owner=owner)
    if seconds <= 0 or enough(job):
        return job

    async def work() -> None:
        nonlocal job
        job = await held(exchange.gateway, jobs.watch(id, owner=owner), job, seconds, enough)

    await exchange.while_connected(work())
    return job


def _is_curl(exchange: Exchange) -> bool:
    return any(name == b"user-agent" and value.startswith(b"curl/") for name, value in exchange.scope["headers"])


# What there is


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(await model_rows(exchange)))


async def model_rows(exchange: Exchange) -> list[wire.Model]:
    """The models that paint. One whose own server does not answer is told without its choices."""
    engine = exchange.engine
    loaded = {row.info.id for row in engine.loaded(elsewhere=True) if not row.loading}
    rows = []
    for info in await painters(engine):
        try:
            choice = await offer(engine, info.id)
        except (ModelNotFound, BackendError):
            choice = None
        rows.append(serve.model_row(info, choice, loaded=info.id in loaded))
    return rows


async def _loras(exchange: Exchange) -> None:
    await exchange.json(serve.loras_reply(await loras(exchange.engine)))


async def _health(exchange: Exchange) -> None:
    reached = {name: error is None for name, error in (await exchange.engine.unreached()).items()}
    jobs, queue = exchange.gateway.jobs, None
    if jobs is not None:
        found = await jobs.queue()
        status: Literal["ok", "unreachable"] = "ok" if found.reachable else "unreachable"
        queue = wire.Queue(status=status, waiting=found.waiting, running=found.running)
    await exchange.json(serve.health_reply(reached, queue))


# Words that several have


def _id(exchange: Exchange) -> str:
    return _checked(str(exchange.scope["path_params"]["job_id"]))


def _checked(id: str) -> str:
    """The id of a job. Raises JobNotFound: it cannot be one."""
    if not _UUID.fullmatch(id.lower()):
        raise JobNotFound(f"job {id[:100]!r} not found")
    return id.lower()


def _named(job: Job) -> tuple[bytes, bytes]:
    return b"x-job-id", job.id.encode()


def _retry(job: Job) -> tuple[bytes, bytes]:
    return b"retry-after", b"%d" % max(1, min(RETRY, round(RETRY if job.estimate is None else job.estimate)))


def _place(exchange: Exchange, job: Job) -> str:
    """The path where all of a job is told."""
    return exchange.scope["path"].rpartition("/image/")[0] + f"/status/{job.id}"


ROUTES: dict[str, dict[str, Handler]] = {
    "/generate": {"POST": _generate},
    "/status/{job_id:str}": {"GET": _status, "HEAD": _status},
    "/image/{job_id:str}": {"GET": _image, "HEAD": _image},
    "/download/{filename:str}": {"GET": _download, "HEAD": _download},
    "/models": {"GET": _models, "HEAD": _models},
    "/loras": {"GET": _loras, "HEAD": _loras},
    "/health": {"GET": _health, "HEAD": _health},
    "/jobs": {"GET": _list, "HEAD": _list},
    "/jobs/{job_id:str}": {"GET": _status, "HEAD": _status, "DELETE": _delete},
    "/jobs/{job_id:str}/cancel": {"POST": _cancel},
    "/jobs/{job_id:str}/events": {"GET": _events, "HEAD": _events_head},
}
