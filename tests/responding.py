"""A gateway in memory that is asked on ``/v1/responses``, and what its answers say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from canonical.requests import Generate
from gateway.store import Row
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.houses import HELLO, Home, Talks, tells

PATH = "/v1/responses"
ASK = {"model": "a", "input": "the secret prompt"}
ANN: Headers = [(b"authorization", b"Bearer key-of-ann")]
BEN: Headers = [(b"authorization", b"Bearer key-of-ben")]
REPORT: Headers = [(b"dragoman-report", b"header")]

Story = Callable[[House], Awaitable[None]]


def lived(data: Path | None, story: Story, home: Home | None = None, **more: Any) -> None:
    async def life() -> None:
        house = House(a=home or Home(tells(*[[event] for event in HELLO])), data=data, **more)
        try:
            await story(house)
            await until(lambda: not house.gateway.running)
        finally:
            await house.close()

    asyncio.run(life())


def records(call: Call) -> list[dict[str, Any]]:
    frames = call.body.decode().removesuffix("\n\n").split("\n\n")
    return [json.loads(frame.split("\n")[1].removeprefix("data: ")) for frame in frames if frame[0] != ":"]


def types(call: Call) -> list[str]:
    return [record["type"] for record in records(call)]


async def ask(house: House, headers: Headers = (), **fields: Any) -> Any:
    call = await house.ask("POST", PATH, {**ASK, **fields}, headers)
    assert call.status == 200, call.body
    return call.json()


async def reached(house: House, id: str, *statuses: str) -> Any:
    """Poll until a response is in one of these states."""
    while True:
        told = (await house.ask("GET", f"{PATH}/{id}")).json()
        if told["status"] in statuses:
            return told
        await asyncio.sleep(0)


def heard(house: House) -> Sequence[Generate]:
    """What the model has been asked."""
    model = house.engine._pool.residents()[0].model
    assert isinstance(model, Talks)
    return model.requests


def slow_store(house: House) -> tuple[asyncio.Event, asyncio.Event, list[str]]:
    """Let what is put wait for the second event; the first tells that something was put, the list tells what."""
    assert house.background is not None
    put = house.background.store.put
    asked, held = asyncio.Event(), asyncio.Event()
    ids: list[str] = []

    async def slow(row: Row) -> None:
        ids.append(row.id)
        asked.set()
        await held.wait()
        await put(row)

    house.background.store.put = slow  # type: ignore[method-assign]
    return asked, held, ids
