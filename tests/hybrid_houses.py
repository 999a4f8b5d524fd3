"""Houses of the hybrid API in memory: models of this machine and of servers behind, and its loads and unloads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from backends.base import Need
from canonical.events import Finished, Started, TextDelta, Usage
from canonical.models import Capability, LoadedModel, ModelInfo
from canonical.requests import Generate, LoadOptions
from gateway.settings import Config, Listener
from tests.asgi import Call, House
from tests.calling import until
from tests.houses import HELLO, Home, Story, tells
from tests.virtual_time import run

ALONE = Listener(port=8000, dialects=("hybrid",))
HI = {"messages": [{"role": "user", "content": "hi"}]}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
SHOWN = {"messages": [{"role": "user", "content": "hi", "images": [{"data_base64": PNG}]}]}
CHATS = (Capability.CHAT,)
SEES = (Capability.CHAT, Capability.VISION)


class Here(Home):
    """A model in this machine's memory."""

    async def need(self, name: str, options: LoadOptions) -> Need:
        return Need(ram=1)


class Away(Home):
    """A model of a server that has others in its memory, too."""

    def __init__(self, *there: str, error: Exception | None = None) -> None:
        super().__init__(tells(*[[event] for event in HELLO]))
        self.there, self.error = list(there), error

    async def models(self) -> list[ModelInfo]:
        if self.error is not None:
            raise self.error
        return [self.info]

    async def others(self) -> list[LoadedModel]:
        if self.error is not None:
            raise self.error
        return [LoadedModel(info=ModelInfo(id=name, backend="away")) for name in self.there]

    async def free(self, name: str) -> bool:
        if self.error is not None:
            raise self.error
        if name not in self.there:
            return False
        self.there.remove(name)
        return True


class Gate:
    """A model that says a word and goes on when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def story(self, _: Generate) -> Any:
        yield [Started("m"), TextDelta("Hel")]
        await self.open.wait()
        yield [TextDelta("lo"), Finished("stop", Usage(3, 2))]


def speaks(abilities: tuple[Capability, ...] = CHATS, story: Story | None = None, **more: Any) -> Here:
    return Here(story or tells(*[[event] for event in HELLO]), abilities=abilities, **more)


def live(story: Callable[[House], Coroutine[Any, Any, None]], *, config: Config | None = None, **homes: Home) -> None:
    async def life() -> None:
        house = House(listener=ALONE, config=config, **(homes or {"a": speaks()}))
        try:
            await story(house)
            await until(lambda: not house.gateway.running)
        finally:
            await house.close()

    run(life())


async def load(house: House, key: str, *, exclusive: bool = False) -> Any:
    return (await house.ask("POST", "/models/load", {"model_key": key, "exclusive": exclusive})).json()


async def unload(house: House, key: str = "") -> Any:
    body = {"model_key": key} if key else {"unload_all": True}
    return (await house.ask("POST", "/models/unload", body)).json()


async def loaded(house: House) -> list[str]:
    return [row["key"] for row in (await house.ask("GET", "/models")).json()]


def said(call: Call) -> str:
    assert call.status == 200, call.body
    return str(call.json()["model"])
