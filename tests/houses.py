"""Backends written for tests: models that do as their story says, and a gateway around them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from backends.base import Section, Tell, tell_nobody
from canonical.errors import ModelNotFound
from canonical.events import Event, Finished, Started, TextDelta, Usage
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Embed, Embeddings, Generate, LoadOptions
from gateway.settings import Config, ModelEntry, Settled

Story = Callable[[Generate], AsyncGenerator[Sequence[Event], None]]

HELLO: list[Event] = [Started("m"), TextDelta("Hel"), TextDelta("lo"), Finished("stop", Usage(3, 2))]


def tells(*batches: Sequence[Event] | Exception) -> Story:
    """A model that says this, or fails with that."""

    async def story(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
            await asyncio.sleep(0)

    return story


def waits(*before: Sequence[Event]) -> Story:
    """A model that says this and then nothing for ever."""

    async def story(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
        for batch in before:
            yield batch
        await asyncio.get_running_loop().create_future()

    return story


class Talks:
    """A model that generates as its story says, and notes what becomes of it."""

    honours = Honours()

    def __init__(self, info: ModelInfo, story: Story, slots: int) -> None:
        self.info, self.story, self.slots = info, story, slots
        self.requests: list[Generate] = []
        self.stopped = self.finished = 0
        self.closed = False

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info, size=1)

    async def close(self) -> None:
        self.closed = True

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        self.requests.append(request)
        stream = self.story(request)
        try:
            async for batch in stream:
                yield batch
            self.finished += 1
        except (GeneratorExit, asyncio.CancelledError):
            self.stopped += 1
            raise
        finally:
            await stream.aclose()


class Vectors:
    """A model that only embeds."""

    honours = Honours()

    slots = 1

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.asked: list[Embed] = []

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        pass

    async def embed(self, request: Embed) -> Embeddings:
        self.asked.append(request)
        return Embeddings(model="inner", vectors=tuple([1.0] for _ in request.inputs), prompt_tokens=1)


class Home:
    """A backend of one model, ``m``. ``on_open`` runs first, and may fail."""

    Settings = Section

    def __init__(
        self,
        story: Story | None = None,
        *,
        slots: int = 1,
        abilities: Sequence[Capability] = (),
        on_open: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.info = ModelInfo(id="m", capabilities=frozenset(abilities))
        self.model = Vectors(self.info) if story is None else Talks(self.info, story, slots)
        self.on_open = on_open
        self.opened = 0
        self.closed = False

    async def models(self) -> list[ModelInfo]:
        return [self.info]

    async def details(self, name: str) -> ModelDetails:
        if name != "m":
            raise ModelNotFound(f"model '{name}' not found", param="model")
        return ModelDetails(info=self.info)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Talks | Vectors:
        self.opened += 1
        if name != "m":
            raise ModelNotFound(f"model '{name}' not found", param="model")
        if self.on_open is not None:
            await self.on_open()
        return self.model

    async def close(self) -> None:
        self.closed = True


def settled(config: Config | None = None, models: Sequence[ModelEntry] = (), **homes: Home) -> Settled:
    """A configuration around ready-made backends; each home's model is public under the home's name."""
    entries = tuple(models) or tuple(ModelEntry(id=name, backend=name, name="m") for name in homes)
    return Settled(config=config or Config(), models=entries, backends=dict(homes))
