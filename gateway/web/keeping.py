"""What the routes share that keep their answers and go on from kept ones: ``/v1/responses`` and LM Studio's chats."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from adapters.responses import serve
from canonical.errors import InvalidRequest, NotFound, StorageFailed
from canonical.limits import BODY, MESSAGES
from gateway.background import Jobs
from gateway.store import UNFINISHED, Row
from gateway.web.exchange import Exchange

REFERENCES = 1_000
"""Responses that the items of one request may refer to."""


def jobs_of(exchange: Exchange) -> Jobs:
    """The store, and what is made in the background. Raises StorageFailed where nothing is kept."""
    jobs = exchange.gateway.background
    if jobs is None:
        raise StorageFailed("this gateway keeps no responses")
    return jobs


async def can_keep(exchange: Exchange, stored: bool | None, *, must: bool = False) -> bool:
    """Whether to keep the answer. ``stored`` is the client's word; with it, or ``must``, it has to be kept.

    Raises:
        StorageFailed: it must be kept and cannot be.
    """
    if stored is False:
        return False
    try:
        await jobs_of(exchange).store.ready()
    except StorageFailed:
        if stored or must or exchange.caller.strict:
            raise
        exchange.lose("store")
        return False
    return True


async def keep(exchange: Exchange, row: Row, stored: bool | None) -> bool:
    """Keep an answer, durably. False: it cannot be kept, and nobody has asked for it in so many words.

    Raises:
        StorageFailed: it cannot be kept, and somebody has.
    """
    try:
        await jobs_of(exchange).store.put(row)
    except StorageFailed:
        if stored or exchange.caller.strict:
            raise
        exchange.lose("store")
        return False
    return True


async def said_before(
    exchange: Exchange, previous: str | None, items: Sequence[Raw] = ()
) -> tuple[list[Raw], list[Raw]]:
    """The items that a request goes on from, and its own; both without references.

    Raises:
        InvalidRequest: there is no such answer, or it is not complete.
    """
    history: list[Raw] = []
    if previous is not None:
        try:
            rows = await jobs_of(exchange).store.chain(previous, owner=exchange.caller.owner, limit=MESSAGES, size=BODY)
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
        row = await jobs_of(exchange).store.get(owner, owner=exchange.caller.owner) if owner else None
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


def _no_previous(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
