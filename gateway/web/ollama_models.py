"""The routes of Ollama's dialect that change which models there are: pull, push, create, copy, delete, blobs.

Progress goes out as it comes, a line each. Until the first line failures are real statuses; a pull or push has begun with
its first words, so that a missing model is a line as well.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from adapters.ollama import managing
from canonical.digests import normal
from canonical.errors import GatewayError, ModelNotFound
from canonical.progress import Progress
from gateway.web.exchange import Exchange, Handler

UPLOADS = (b"/api/blobs/",)
"""How targets begin whose bodies are files."""
_EMPTY = b"text/plain; charset=utf-8"


class _Begin(Protocol):
    def __call__(self, name: str, /, *, insecure: bool) -> AsyncGenerator[Progress, None]: ...


async def _pull(exchange: Exchange) -> None:
    await _transfer(exchange, exchange.engine.library.pull, managing.FIRST["pull"])


async def _push(exchange: Exchange) -> None:
    await _transfer(exchange, exchange.engine.library.push, managing.FIRST["push"])


async def _transfer(exchange: Exchange, begin: _Begin, first: str) -> None:
    exchange.must_manage()
    ask = managing.read_transfer(await exchange.body())
    exchange.model = ask.name
    steps = begin(ask.name, insecure=ask.insecure)
    await exchange.while_connected(_watch(exchange, steps, stream=ask.stream, first=first))


async def _create(exchange: Exchange) -> None:
    exchange.must_manage()
    ask = managing.read_create(await exchange.body())
    exchange.model = ask.name
    steps = _with_notes(exchange.engine.library.create(ask.name, ask.recipe), ask.notes)
    await exchange.while_connected(_watch(exchange, steps, stream=ask.stream))


async def _with_notes(steps: AsyncGenerator[Progress, None], notes: Sequence[str]) -> AsyncGenerator[Progress, None]:
    async with aclosing(steps):
        async for step in steps:
            yield step
    for note in notes:
        yield Progress(status=note)


async def _copy(exchange: Exchange) -> None:
    exchange.must_manage()
    ask = managing.read_copy(await exchange.body())
    exchange.model = ask.source
    await exchange.engine.library.copy(ask.source, ask.destination)
    await exchange.reply(200, _EMPTY, b"")


async def _delete(exchange: Exchange) -> None:
    exchange.must_manage()
    ask = managing.read_transfer(await exchange.body())
    exchange.model = ask.name
    await exchange.engine.library.delete(ask.name)
    await exchange.reply(200, _EMPTY, b"")


async def _has_blob(exchange: Exchange) -> None:
    exchange.must_manage()
    if not await exchange.engine.library.has_blob(_digest(exchange)):
        raise ModelNotFound("blob not found")
    await exchange.reply(200, _EMPTY, b"")


async def _put_blob(exchange: Exchange) -> None:
    """Keep what comes; a blob that is there already is not read again."""
    exchange.must_manage()
    digest = _digest(exchange)
    library = exchange.engine.library
    if await library.has_blob(digest):
        await exchange.reply(200, _EMPTY, b"")
        return
    new = await library.put_blob(digest, exchange.pieces(), size=exchange.announced)
    await exchange.reply(201 if new else 200, _EMPTY, b"")


def _digest(exchange: Exchange) -> str:
    return normal(exchange.scope["path"].rpartition("/")[2])


async def _watch(exchange: Exchange, steps: AsyncGenerator[Progress, None], *, stream: bool, first: str = "") -> None:
    """Send each step as it comes, or one answer at the end. ``first``: what has been said before a model is found missing."""
    encoder = managing.ProgressStream()
    try:
        async with aclosing(steps):
            async for step in steps:
                if stream:
                    await _line(exchange, encoder.feed(step))
        if stream:
            await _line(exchange, encoder.finish(), last=True)
        else:
            await exchange.json(managing.progress_reply())
    except GatewayError as error:
        if not stream:
            raise managing.transfer_failed(error) from error
        if not exchange.status and first and isinstance(error, ModelNotFound):
            await _line(exchange, encoder.feed(Progress(status=first)))
        await exchange.break_off(error, encoder.fail)
    except BaseException as error:  # noqa: BLE001  it is told or raised there
        await exchange.break_off(error, encoder.fail)


async def _line(exchange: Exchange, line: bytes, *, last: bool = False) -> None:
    if not exchange.status:
        await exchange.begin(managing.ProgressStream.media_type)
    await (exchange.end(line) if last else exchange.piece(line))


ROUTES: dict[str, dict[str, Handler]] = {
    "/api/pull": {"POST": _pull},
    "/api/push": {"POST": _push},
    "/api/create": {"POST": _create},
    "/api/copy": {"POST": _copy},
    "/api/delete": {"DELETE": _delete},
    "/api/blobs/{digest:str}": {"HEAD": _has_blob, "POST": _put_blob},
}
