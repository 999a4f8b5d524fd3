"""OpenAI's image API: pictures are jobs, and who asks waits for them. A client that leaves stops its own within a step."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable

from msgspec import structs

from adapters.openai import image_reply as reply
from adapters.openai import images
from adapters.openai.image_reply import Done
from adapters.openai.images import Source, Wish
from adapters.recipe import header
from canonical.errors import Conflict, GatewayError, NotFound, NotImplementedHere, Unsupported
from canonical.media import Blob
from canonical.painting import Paint
from canonical.report import forbidden
from gateway.jobs import Job, Jobs, Result
from gateway.painting import offer, prepared
from gateway.picture_formats import check_form, converted
from gateway.web.caller import in_body
from gateway.web.exchange import Exchange, Handler
from gateway.web.holding import with_pauses
from gateway.web.signed import FILES

BEAT = b": still painting\n\n"
SILENCE = 15.0
"""Seconds after which a stream says that it is there: proxies cut what is silent for a minute."""
METADATA = b"x-generation-metadata"
_SLASHES = re.compile(r"/{2,}")


async def _generations(exchange: Exchange) -> None:
    await _answer(exchange, images.read_generation(await exchange.body()))


async def _edits(exchange: Exchange) -> None:
    await _answer(exchange, images.read_edit(_content_type(exchange), await exchange.body()))


async def _variations(exchange: Exchange) -> None:
    await _answer(exchange, images.read_variation(_content_type(exchange), await exchange.body()))


async def _file(exchange: Exchange) -> None:
    """A picture behind a link; who has a key and no signature gets the pictures of that key."""
    jobs, links = exchange.gateway.jobs, exchange.gateway.links
    name = str(exchange.scope["path_params"]["name"])
    if jobs is None or links is None:
        raise NotFound("there is no such picture")
    opened = await links.opened(name, exchange.scope["query_string"])
    if opened is None and not exchange.caller.owner:
        raise NotFound("there is no such picture")  # without keys nothing but the signature tells who may see it
    image = await jobs.picture(name, owner=exchange.caller.owner if opened is None else None)
    if opened is not None:
        image = await converted(image, opened.form or None, opened.quality)
    seconds = 0 if opened is None else opened.seconds
    await exchange.reply(
        200,
        image.media_type.encode(),
        image.data,
        [(b"cache-control", b"private, max-age=%d" % seconds), (b"x-content-type-options", b"nosniff")],
    )


async def _answer(exchange: Exchange, wish: Wish) -> None:
    jobs = exchange.jobs
    exchange.model = wish.paint.model
    exchange.report = wish.report
    if exchange.caller.strict and wish.report.dropped:
        raise forbidden(wish.report, wish.paint.model)
    check_form(wish.form)
    send = _stream if wish.stream else _whole
    await exchange.while_connected(_named(wish, send(exchange, jobs, wish)))


async def _whole(exchange: Exchange, jobs: Jobs, wish: Wish) -> None:
    request = await _request(exchange, wish)
    created = int(time.time())
    results: tuple[Result, ...] = ()
    async with contextlib.aclosing(_followed(exchange, jobs, request)) as states:
        async for job in states:
            results = job.results
    done = [await _done(exchange, jobs, wish, result) for result in results]
    told = [(METADATA, header(done[0].image.data))] if len(done) == 1 else []
    await exchange.json(reply.whole(wish, request, done, created), headers=told)


async def _stream(exchange: Exchange, jobs: Jobs, wish: Wish) -> None:
    try:
        request = await _request(exchange, wish)
        created = int(time.time())
        partials: dict[int, int] = {}
        sent, seen = 0, None
        async with contextlib.aclosing(with_pauses(_followed(exchange, jobs, request), lambda: SILENCE)) as states:
            async for job in states:
                if job is None:
                    await _piece(exchange, BEAT)
                    continue
                preview, index = job.preview, job.index
                fresh = preview is not None and preview != seen and index >= len(job.results)
                if fresh and preview is not None and partials.get(index, 0) < request.previews:
                    seen, at = preview, partials.get(index, 0)
                    partials[index] = at + 1
                    shown = await converted(preview, wish.form, wish.compression)
                    await _piece(exchange, reply.partial(wish, request, shown, (index, at), created))
                for result in job.results[sent:]:
                    done = await _done(exchange, jobs, wish, result)
                    await _piece(exchange, reply.completed(wish, request, done, sent, created))
                    sent += 1
        last = b""
        if exchange.report is not None and exchange.caller.report == "body":
            last = in_body(exchange.report, b"", reply.STREAM.encode())
        await exchange.end(last)
    except BaseException as error:  # noqa: BLE001  it is told or raised there
        await exchange.break_off(error, reply.failed)


async def _piece(exchange: Exchange, frame: bytes) -> None:
    if not exchange.status:
        await exchange.begin(reply.STREAM)
    await exchange.piece(frame)


async def _request(exchange: Exchange, wish: Wish) -> Paint:
    """What to paint, complete: with its pictures, and as many steps as the quality says."""
    request = wish.paint
    sources: list[Source] = [*wish.images[:2], *([] if wish.mask is None else [wish.mask])]
    if len(wish.images) > 2:
        raise Unsupported("at most two images: one to edit, and one to take after", param="image")
    if links := [source for source in sources if isinstance(source, str)]:
        found = await exchange.engine.linked(links, param="image")
        sources = [found[source] if isinstance(source, str) else source for source in sources]
    blobs = [source for source in sources if isinstance(source, Blob)]
    if wish.mask is not None:
        request = structs.replace(request, mask=blobs.pop())
    if blobs:
        request = structs.replace(request, image=blobs[0])
    request = await prepared(exchange.engine, request)
    exchange.model = request.model
    if len(blobs) > 1:
        if not (await offer(exchange.engine, request.model)).references:
            words = f'"{request.model}" takes one image: a second one to take after needs an IP-Adapter'
            raise Unsupported(words, param="image")
        request = structs.replace(request, reference=blobs[1])
    if wish.steps != 1.0 and request.steps is not None:
        request = structs.replace(request, steps=max(1, round(request.steps * wish.steps)))
    return request


async def _followed(exchange: Exchange, jobs: Jobs, request: Paint) -> AsyncGenerator[Job, None]:
    """The job as it changes, up to its good end. Raises whatever it failed with."""
    caller = exchange.caller
    states = jobs.follow(request, owner=caller.owner, priority=caller.priority, dialect="openai")
    async with contextlib.aclosing(states):
        async for job in states:
            if job.state == "failed":
                raise GatewayError(job.error, status=job.status or None, code=job.code or None)
            if job.state == "cancelled":
                exchange.headers.append((b"x-should-retry", b"false"))  # OpenAI's SDKs repeat a conflict
                raise Conflict("the picture was cancelled while it was being made", code="cancelled")
            yield job


async def _done(exchange: Exchange, jobs: Jobs, wish: Wish, result: Result) -> Done:
    image = await jobs.picture(result.name, owner=exchange.caller.owner)
    if not wish.link or wish.stream:
        shown = await converted(image, wish.form, wish.compression)
        return Done(image=image, shown=shown, made=result.made, warnings=result.warnings)
    links = exchange.gateway.links
    if links is None:
        raise NotImplementedHere("this gateway keeps nothing to link to")
    form = wish.form if wish.form not in {None, image.media_type.removeprefix("image/")} else None
    url = await links.link(_base(exchange), result.name, form or "", wish.compression if form else None)
    return Done(image=image, url=url, made=result.made, warnings=result.warnings)


async def _named(wish: Wish, work: Awaitable[None]) -> None:
    """``work``, whose errors name fields as the client does."""
    try:
        await work
    except GatewayError as error:
        error.param = wish.names.get(error.param or "", error.param)
        raise


def _base(exchange: Exchange) -> str:
    """The URL up to ``/images``, as the client has called it; its host is one that the guard has looked at."""
    scope = exchange.scope
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    server = scope["server"]
    if not host and server is not None:
        host = f"{server[0]}:{server[1]}".encode()
    path = _SLASHES.sub("/", scope["path"]).rpartition("/images/")[0]
    return f"{scope['scheme']}://{host.decode('latin-1')}{path}"


def _content_type(exchange: Exchange) -> bytes:
    return next((value for name, value in exchange.scope["headers"] if name == b"content-type"), b"")


_PATHS: dict[str, dict[str, Handler]] = {
    "/images/generations": {"POST": _generations},
    "/images/edits": {"POST": _edits},
    "/images/variations": {"POST": _variations},
    FILES + "{name:str}": {"GET": _file, "HEAD": _file},
}
ROUTES = {f"{base}{path}": methods for base in ("/v1", "") for path, methods in _PATHS.items()}
