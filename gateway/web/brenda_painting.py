"""What Brenda's dialect paints: pictures of a prompt, and others made anew. Each is a job, which its stream follows.

A job is stopped with its session's other work by ``POST /v1/stop``, and when its client leaves. It is found again under the
other image APIs, as all jobs are.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from adapters.brenda import painting, serve
from canonical.errors import GatewayError, ModelNotFound
from canonical.models import Capability
from canonical.painting import Paint
from gateway.engine import Engine
from gateway.jobs import Job, Jobs
from gateway.painting import offer, painters
from gateway.picture_formats import converted
from gateway.web.brenda_events import tell
from gateway.web.exchange import Exchange, Handler
from gateway.web.in_session import session, sessions_of


async def _generate(exchange: Exchange) -> None:
    _word(exchange)
    await _follow(exchange, painting.read_generate(await exchange.body()))


async def _refine(exchange: Exchange) -> None:
    _word(exchange)
    await _follow(exchange, painting.read_refine(await exchange.body()))


def _word(exchange: Exchange) -> None:
    """Whoever makes pictures reads events, and finds an error among them, whatever the status."""
    stream = painting.PaintStream
    exchange.voice = structs.replace(exchange.voice, json_type=stream.media_type.encode(), error_body=stream.fail)


async def _follow(exchange: Exchange, request: Paint) -> None:
    if not request.model:
        request = structs.replace(request, model=await _usual(exchange.engine))
    exchange.model = request.model
    request = await _sized(exchange.engine, request)
    with sessions_of(exchange).generating(session(exchange)) as generation:
        jobs = exchange.jobs

        async def frames() -> AsyncGenerator[bytes, None]:
            events, job = painting.PaintStream(), None
            following = jobs.follow(
                request, owner=exchange.caller.owner, priority=exchange.caller.priority, dialect="brenda"
            )
            async with aclosing(generation.each(following)) as seen:
                async for job in seen:
                    exchange.model = job.request.model
                    yield events.feed(1, 1) if job.state == "done" else events.feed(job.done, job.total)
            if job is None or not job.over:  # it was stopped in its session
                raise GatewayError("the picture was stopped", code="cancelled")
            yield await _last(jobs, job)

        await exchange.while_connected(tell(exchange, frames(), painting.PaintStream))


async def _last(jobs: Jobs, job: Job) -> bytes:
    """The event of a job that is over. Raises GatewayError, also for one that has no picture."""
    if job.state == "cancelled":
        raise GatewayError("the picture was stopped", code="cancelled")
    if not job.results:
        raise GatewayError(job.error or "there is no picture", status=job.status or 500, code=job.code or None)
    (result, *_) = job.results
    image = await converted(await jobs.picture(result.name, owner=job.owner), "png")
    return painting.PaintStream.end(image, structs.replace(result.made, model=job.request.model), result.warnings)


async def _models(exchange: Exchange) -> None:
    await exchange.json(serve.models_reply(row.id for row in await painters(exchange.engine)))


async def _usual(engine: Engine) -> str:
    """The model that the document names, where there is one; empty: the default of all image APIs."""
    try:
        found = await engine.model(painting.MODEL)
    except ModelNotFound:
        return ""
    return found.id if Capability.PAINT in found.capabilities else ""


async def _sized(engine: Engine, request: Paint) -> Paint:
    try:
        return painting.sized(request, await offer(engine, request.model))
    except GatewayError:
        return request  # whoever takes the job says it, with more of what is meant


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/images/generate": {"POST": _generate},
    "/v1/images/models": {"GET": _models, "HEAD": _models},
    "/v1/images/refine": {"POST": _refine},
}
