"""A house that keeps conversations, and a model whose answers come when they are let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Literal

from msgspec import structs

from canonical.errors import BackendError, InvalidRequest
from canonical.events import Event, Finished, Started, TextDelta, Usage
from canonical.requests import Generate
from gateway.settings import Config, Defaults, Listener
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.houses import Home
from tests.stored import Place

ANN: Headers = [(b"authorization", b"Bearer key-of-ann")]
BEN: Headers = [(b"authorization", b"Bearer key-of-ben")]
LISTENER = Listener(port=11434, dialects=("conversation",))


class Parrot:
    """A model that answers ``P!`` to the prompt ``P``, as soon as it may: each prompt is held until it is let go.

    ``fail ...`` fails in the middle. More than ``room`` messages are more than its context.
    """

    def __init__(self, *, free: bool = True, room: int = 10_000) -> None:
        self.heard: list[list[str]] = []
        self.running = self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.free = free
        self.room = room

    def let(self, prompt: str) -> None:
        self.gates.setdefault(prompt, asyncio.Event()).set()

    async def __call__(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        said = [message.text for message in request.messages]
        if len(said) > self.room:
            raise InvalidRequest("the context is full", code="context_length_exceeded")
        self.heard.append(said)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield [Started("m"), TextDelta(said[-1])]
            if not self.free:
                await self.gates.setdefault(said[-1], asyncio.Event()).wait()
            if said[-1].startswith("fail"):
                raise BackendError("the model broke")
            yield [TextDelta("!"), Finished("length" if said[-1].startswith("cut") else "stop", Usage(1, 2))]
        finally:
            self.running -= 1


def house(parrot: Parrot, place: Place | None, **more: Any) -> House:
    config = more.pop("config", Config(defaults=Defaults(chat="a")))
    data = None
    if place is not None:
        config, data = structs.replace(config, database=place.url), place.folder
    return House(listener=LISTENER, config=config, data=data, a=Home(parrot, slots=50), **more)


def lived(place: Place, parrot: Parrot, story: Callable[[House], Awaitable[None]], **more: Any) -> None:
    async def life() -> None:
        one = house(parrot, place, **more)
        try:
            await story(one)
            await until(lambda: not one.gateway.running)
            assert not one.gateway.conversations._lines  # type: ignore[union-attr]
        finally:
            await one.close()

    asyncio.run(life())


async def start(house: House, id: str = "c", headers: Headers = ()) -> Call:
    return await house.ask("POST", f"/api/conversation/start?conv_id={id}", headers=headers)


def saying(house: House, prompt: str, *, id: str = "c", headers: Headers = (), **more: Any) -> Call:
    return house.call("POST", f"/api/conversation/{id}/message", {"prompt": prompt, **more}, headers)


async def say(house: House, prompt: str, **more: Any) -> Call:
    return await saying(house, prompt, **more).end()


async def told(house: House, id: str = "c", headers: Headers = ()) -> list[dict[str, Any]]:
    call = await house.ask("GET", f"/api/conversation/{id}", headers=headers)
    assert call.status == 200, call.body
    body = call.json()
    assert body["id"] == id
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def shape(messages: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["content"], message["state"]) for message in messages]


async def in_state(house: House, prompt: str, state: str) -> None:
    """Poll until a message is in a state."""
    while (prompt, state) not in shape(await told(house)):  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0)


async def leave_while(house: House, verb: Literal["ask", "settle"]) -> None:
    """Say something, and leave while the store does what ``verb`` says."""
    store = house.store.conversations  # type: ignore[union-attr]
    does, asked, go = getattr(store, verb), asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **more: Any) -> Any:
        asked.set()
        await go.wait()
        return await does(*arguments, **more)

    setattr(store, verb, slow)
    call = saying(house, "one")
    await asked.wait()
    call.leave()
    await asyncio.sleep(0)
    go.set()
    await call.end()
    setattr(store, verb, does)
