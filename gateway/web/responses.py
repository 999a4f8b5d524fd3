"""The routes of ``/v1/responses``, a part of the OpenAI dialect: answers that are kept, gone on from, made in the background.

A response is durable before its last byte goes out. Where nothing can be kept, the client that asked for it in so many words
gets an error; any other gets its answer, with ``store: false`` in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from urllib.parse import parse_qs

from adapters.dialect import Stamp
from adapters.responses import serve
from adapters.responses.replay import frames_of, replay
from canonical.errors import InvalidRequest, NotFound, NotImplementedHere
from canonical.events import Finished
from canonical.limits import BODY, MESSAGES
from canonical.requests import Generate
from gateway.background import PIECE, Job
from gateway.store import ABANDONED, UNFINISHED, Row
from gateway.web.answering import count, pour, stream
from gateway.web.exchange import Exchange, Handler
from gateway.web.keeping import can_keep, jobs_of, keep, said_before

PARAMETERS = 50
"""Parameters of a query."""
_GONE = "the gateway ended before the response was complete"


async def _create(exchange: Exchange) -> None:
    question = serve.read_create(await exchange.body())
    exchange.model = question.request.model or ""
    await exchange.while_connected(_respond(exchange, question))


async def _respond(exchange: Exchange, question: serve.Question) -> None:
    history, items = await said_before(exchange, question.previous, question.items)
    request = question.asked(history, items)
    store = await can_keep(exchange, question.stored, must=question.background)
    answer = question.answer(Stamp(exchange.id, time.time_ns), store=store)
    if question.background:
        await _in_background(exchange, question, request, answer)
        return

    async def settle() -> None:
        answer.settle()
        if not answer.store:
            return
        answer.store = await keep(exchange, _row(exchange, question, answer, answer.status), question.stored)

    if question.stream:
        await stream(exchange, (request,), answer, settle)
        return
    batches = exchange.events(request)
    try:
        async for batch in batches:
            for event in batch:
                answer.feed(event)
                if type(event) is Finished and event.usage is not None:
                    exchange.tokens += event.usage.completion
    finally:
        await batches.aclose()
    await settle()
    await exchange.json(answer.body())


async def _in_background(
    exchange: Exchange, question: serve.Question, request: Generate, answer: serve.ResponseStream
) -> None:
    jobs = jobs_of(exchange)
    jobs.check_room()
    if request.model:
        await exchange.engine.model(request.model)  # nobody will be there to be told that it does not exist
    row, caller, running = _row(exchange, question, answer, "queued"), exchange.caller, exchange.gateway.running
    # What is in the store must be begun, even where the client leaves between the two.
    starting = asyncio.ensure_future(jobs.start(row, answer, request, strict=caller.strict, running=running))
    running.add(starting)
    starting.add_done_callback(running.discard)
    job = await asyncio.shield(starting)
    if question.stream:
        await pour(exchange, answer.media_type, job.follow(-1))
    else:
        await exchange.json(answer.body(status="queued"))


def _row(exchange: Exchange, question: serve.Question, answer: serve.ResponseStream, status: str) -> Row:
    return Row(
        id=answer.id,
        owner=exchange.caller.owner,
        previous=question.previous,
        status=status,
        input=question.kept(exchange.id),
        object=answer.body(status="queued") if question.background else answer.body(),
    )


async def _count(exchange: Exchange) -> None:
    question = serve.read_count(await exchange.body())
    history, items = await said_before(exchange, question.previous, question.items)
    await count(exchange, question.asked(history, items))


async def _retrieve(exchange: Exchange) -> None:
    query = _query(exchange)
    streamed = query.get("stream") in {"true", "1"}
    after = _number(query.get("starting_after", ""))
    job = _job(exchange)
    if job is not None:
        exchange.report = job.report
        if streamed:
            await exchange.while_connected(pour(exchange, job.answer.media_type, job.follow(after)))
        else:
            await exchange.json(job.answer.body())
        return
    row = await _found(exchange)
    if not streamed:
        await exchange.json(row.object)
        return
    if row.status in UNFINISHED:
        raise InvalidRequest("this response is made by another gateway: ask without 'stream' until it is complete")
    frames = iter(frames_of(row.log)) if row.log and row.status != ABANDONED else replay(row.object)
    del row  # a client may read slowly, and need not hold all of it
    pieces = _pieces(islice(frames, after + 1, None))
    await exchange.while_connected(pour(exchange, serve.ResponseStream.media_type, pieces))


async def _delete(exchange: Exchange) -> None:
    job = _job(exchange)
    if job is not None:
        await job.cancel()
    if not await jobs_of(exchange).store.delete(_id(exchange), owner=exchange.caller.owner):
        raise _not_found(_id(exchange))
    await exchange.json(serve.deleted_reply(_id(exchange)))


async def _cancel(exchange: Exchange) -> None:
    job = _job(exchange)
    if job is not None:
        await job.cancel()
        await exchange.json(job.answer.body())
        return
    row = await _found(exchange)
    if not serve.in_background(row.object):
        raise InvalidRequest("Cannot cancel a synchronous response: only those with 'background' run on their own.")
    if row.status not in UNFINISHED:
        await exchange.json(row.object)
        return
    cancelled = serve.with_status(row.object, "cancelled")
    await jobs_of(exchange).store.settle(row.id, status="cancelled", object=cancelled)
    await exchange.json((await _found(exchange)).object)


async def _input_items(exchange: Exchange) -> None:
    query = _query(exchange)
    rows = await jobs_of(exchange).store.chain(_id(exchange), owner=exchange.caller.owner, limit=MESSAGES, size=BODY)
    if not rows:
        raise _not_found(_id(exchange))
    *before, last = rows
    items = [item for row in before for item in serve.response_items(row.input, row.object)]
    items += serve.input_items(last.input)
    page = serve.page_reply(
        items, limit=query.get("limit", ""), order=query.get("order", ""), after=query.get("after", "")
    )
    await exchange.json(page)


async def _compact(exchange: Exchange) -> None:
    raise NotImplementedHere(f"{exchange.scope['path']} is not served by this gateway yet")


async def _pieces(frames: Iterator[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        for at in range(0, len(frame), PIECE):
            yield frame[at : at + PIECE]


def _job(exchange: Exchange) -> Job | None:
    return jobs_of(exchange).get(_id(exchange), owner=exchange.caller.owner)


async def _found(exchange: Exchange) -> Row:
    """The row that the path names, its object in the state that it is in. Raises NotFound."""
    row = await jobs_of(exchange).store.get(_id(exchange), owner=exchange.caller.owner)
    if row is None:
        raise _not_found(_id(exchange))
    if row.status == ABANDONED:
        failed = serve.with_status(row.object, "failed", code="server_error", message=_GONE)
        return Row(id=row.id, owner=row.owner, status=ABANDONED, input=row.input, object=failed)
    return row


def _id(exchange: Exchange) -> str:
    return str(exchange.scope["path_params"]["id"])


def _query(exchange: Exchange) -> dict[str, str]:
    try:
        asked = parse_qs(exchange.scope["query_string"].decode("latin-1"), max_num_fields=PARAMETERS)
    except ValueError as error:
        raise InvalidRequest(f"a query may have at most {PARAMETERS} parameters") from error
    return {name: values[-1] for name, values in asked.items()}


def _number(text: str) -> int:
    """``starting_after``; none is before the first."""
    if not text:
        return -1
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest("'starting_after' must be the number of an event", param="starting_after")
    return int(text)


def _not_found(id: str) -> NotFound:
    return NotFound(f"Response with id {id[:80]!r} not found.", param="response_id")


PATHS: dict[str, dict[str, Handler]] = {
    "/responses": {"POST": _create},
    "/responses/input_tokens": {"POST": _count},
    "/responses/compact": {"POST": _compact},
    "/responses/{id:str}": {"GET": _retrieve, "DELETE": _delete},
    "/responses/{id:str}/cancel": {"POST": _cancel},
    "/responses/{id:str}/input_items": {"GET": _input_items},
}
