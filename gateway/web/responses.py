"""The routes of ``/v1/responses``, a part of the OpenAI dialect: answers that are kept, gone on from, made in the background.

A response is durable before its last byte goes out. Where nothing can be kept, the client that asked for it in so many words
gets an error; any other gets its answer, with ``store: false`` in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice
from urllib.parse import parse_qs

from msgspec import Raw

from adapters.dialect import Stamp
from adapters.responses import serve
from adapters.responses.replay import frames_of, replay
from canonical.errors import InvalidRequest, NotFound, NotImplementedHere, StorageFailed
from canonical.events import Finished
from canonical.limits import BODY, MESSAGES
from canonical.requests import Generate
from gateway.background import PIECE, Job, Jobs
from gateway.store import ABANDONED, UNFINISHED, Row
from gateway.web.answering import count, pour, stream
from gateway.web.exchange import Exchange, Handler

REFERENCES = 1_000
"""Responses that the items of one request may refer to."""
PARAMETERS = 50
"""Parameters of a query."""
_GONE = "the gateway ended before the response was complete"


async def _create(exchange: Exchange) -> None:
    question = serve.read_create(await exchange.body())
    exchange.model = question.request.model or ""
    await exchange.while_connected(_respond(exchange, question))


async def _respond(exchange: Exchange, question: serve.Question) -> None:
    history, items = await _said_before(exchange, question.previous, question.items)
    request = question.asked(history, items)
    store = await _can_keep(exchange, question)
    answer = question.answer(Stamp(exchange.id, time.time_ns), store=store)
    if question.background:
        await _in_background(exchange, question, request, answer)
        return

    async def keep() -> None:
        answer.settle()
        if not answer.store:
            return
        try:
            await _jobs(exchange).store.put(_row(exchange, question, answer, answer.status))
        except StorageFailed:
            if question.stored or exchange.caller.strict:
                raise
            answer.store = False
            exchange.lose("store")

    if question.stream:
        await stream(exchange, (request,), answer, keep)
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
    await keep()
    await exchange.json(answer.body())


async def _can_keep(exchange: Exchange, question: serve.Question) -> bool:
    """Whether to keep the answer. Raises StorageFailed where it must be kept and cannot be."""
    if question.stored is False:
        return False
    try:
        await _jobs(exchange).store.ready()
    except StorageFailed:
        if question.stored or question.background or exchange.caller.strict:
            raise
        exchange.lose("store")
        return False
    return True


async def _in_background(
    exchange: Exchange, question: serve.Question, request: Generate, answer: serve.ResponseStream
) -> None:
    jobs = _jobs(exchange)
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


async def _said_before(exchange: Exchange, previous: str | None, items: Sequence[Raw]) -> tuple[list[Raw], list[Raw]]:
    """The items that the request goes on from, and its own; both without references."""
    history: list[Raw] = []
    if previous is not None:
        try:
            rows = await _jobs(exchange).store.chain(previous, owner=exchange.caller.owner, limit=MESSAGES, size=BODY)
        except NotFound as error:
            raise _no_previous(error.message) from error
        if not rows:
            raise _no_previous(f"Previous response with id {previous[:80]!r} not found.")
        if rows[-1].status in UNFINISHED:
            raise InvalidRequest(
                f"Previous response with id {previous!r} is not complete yet.", param="previous_response_id"
            )
        for row in rows:
            history.extend(serve.response_items(row.input, row.object))
    found = await _referred(exchange, history, items)
    return serve.resolved(history, found), serve.resolved(items, found)


async def _referred(exchange: Exchange, history: Sequence[Raw], items: Sequence[Raw]) -> dict[str, Raw]:
    """Every item that is referred to, by its id."""
    wanted = {id for id in (*serve.referred(history), *serve.referred(items)) if id}
    if not wanted:
        return {}
    found = {id: item for id, item in _by_id(history).items() if id in wanted}
    owners = {serve.owner_of(id) for id in wanted - found.keys()}
    if len(owners) > REFERENCES:
        raise InvalidRequest(f"the input refers to more than {REFERENCES} responses", param="input")
    size = 0
    for owner in sorted(owners):
        row = await _jobs(exchange).store.get(owner, owner=exchange.caller.owner) if owner else None
        if row is not None:
            size += len(row.input) + len(row.object)
            if size > BODY:
                raise InvalidRequest(f"the input refers to more than {BODY} bytes", param="input")
            found.update(_by_id(serve.response_items(row.input, row.object)))
    return found


def _by_id(items: Sequence[Raw]) -> dict[str, Raw]:
    """Items that stand there themselves, by their ids."""
    references = set(serve.referred(items))
    return {id: item for id, item in zip(serve.item_ids(items), items, strict=True) if id and id not in references}


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
    history, items = await _said_before(exchange, question.previous, question.items)
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
    if not await _jobs(exchange).store.delete(_id(exchange), owner=exchange.caller.owner):
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
    await _jobs(exchange).store.settle(row.id, status="cancelled", object=cancelled)
    await exchange.json((await _found(exchange)).object)


async def _input_items(exchange: Exchange) -> None:
    query = _query(exchange)
    rows = await _jobs(exchange).store.chain(_id(exchange), owner=exchange.caller.owner, limit=MESSAGES, size=BODY)
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


def _jobs(exchange: Exchange) -> Jobs:
    jobs = exchange.gateway.jobs
    if jobs is None:
        raise StorageFailed("this gateway keeps no responses")
    return jobs


def _job(exchange: Exchange) -> Job | None:
    return _jobs(exchange).get(_id(exchange), owner=exchange.caller.owner)


async def _found(exchange: Exchange) -> Row:
    """The row that the path names, its object in the state that it is in. Raises NotFound."""
    row = await _jobs(exchange).store.get(_id(exchange), owner=exchange.caller.owner)
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


def _no_previous(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")


PATHS: dict[str, dict[str, Handler]] = {
    "/responses": {"POST": _create},
    "/responses/input_tokens": {"POST": _count},
    "/responses/compact": {"POST": _compact},
    "/responses/{id:str}": {"GET": _retrieve, "DELETE": _delete},
    "/responses/{id:str}/cancel": {"POST": _cancel},
    "/responses/{id:str}/input_items": {"GET": _input_items},
}
