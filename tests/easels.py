"""A model that paints when it is told to, and jobs around it: what tests of jobs stand on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from msgspec import structs

from backends.base import Section, Tell, tell_nobody
from backends.echo_painting import OFFER, painted_echo, prepared_echo
from canonical.errors import ModelNotFound
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo
from canonical.painting import Offer, Paint, Painted, Step
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.engine import Engine
from gateway.jobs import Job, Jobs
from gateway.jobs.files import Files, files_from
from gateway.settings import Jobs as Settings
from gateway.settings import ModelEntry, Settled
from gateway.store import Store
from tests.stored import ANN, Place

Paints = Callable[[Paint], AsyncGenerator[Step | Painted, None]]


class Easel:
    """A backend whose one model paints echo's stripes, a step each time that it may. It notes all that it does."""

    Settings = Section
    honours = Honours()
    slots = 50

    def __init__(self, *, free: bool = False) -> None:
        self.info = ModelInfo(id="m", capabilities=frozenset({Capability.PAINT}))
        self.requests: list[Paint] = []
        self.steps: list[tuple[str, int, int]] = []
        """Prompt, picture, step."""
        self.now = 0
        """How many paint."""
        self.most = 0
        self.fails: dict[str, list[Exception]] = {}
        """By prompt: what goes wrong, one after the other."""
        self._news = asyncio.Event()
        self._may = asyncio.Semaphore(0)
        self.free = free

    def let(self, steps: int = 1) -> None:
        """So many steps may be done, of whichever job."""
        for _ in range(steps):
            self._may.release()

    def let_all(self) -> None:
        self.free = True
        self.let(1000)

    async def until(self, prompt: str, step: int = 0, index: int = 0) -> None:
        """Wait until a job has come so far; 0: it has begun."""
        while not ((prompt, index, step) in self.steps if step else any(one.prompt == prompt for one in self.requests)):
            self._news.clear()
            await self._news.wait()

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        self.requests.append(request)
        self._news.set()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.fails.get(request.prompt):
                raise self.fails[request.prompt].pop(0)
            for event in painted_echo(request):
                if isinstance(event, Step):
                    if not self.free:
                        await self._may.acquire()
                    self.steps.append((request.prompt, event.index, event.done))
                    self._news.set()
                yield event
        finally:
            self.now -= 1

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info, size=1)

    async def models(self) -> list[ModelInfo]:
        return [self.info]

    async def details(self, name: str) -> ModelDetails:
        return ModelDetails(info=self.info)

    async def offer(self, name: str) -> Offer:
        return OFFER

    async def prepared(self, name: str, request: Paint) -> Paint:
        return prepared_echo(request)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Easel:
        if name != "m":
            raise ModelNotFound(f"model '{name}' not found", param="model")
        return self

    async def close(self) -> None:
        pass


class Studio:
    """One process's jobs."""

    def __init__(self, place: Place, easel: Easel, **settings: Any) -> None:
        config = structs.replace(place.config(), jobs=Settings(**settings))
        entries = (ModelEntry(id="m", backend="easel", name="m"),)
        self.easel = easel
        self.engine = Engine(Settled(config=config, models=entries, backends={"easel": easel}))
        self.store = Store(config, place.folder)
        self.files: Files = files_from(config.jobs, place.folder)
        self.jobs = Jobs(self.engine, config, self.store.jobs, self.files)

    async def submit(self, prompt: str, *, owner: str = ANN, priority: int = 0, **more: Any) -> Job:
        return await self.jobs.submit(Paint(prompt=prompt, **more), owner=owner, priority=priority)

    async def ended(self, job: Job) -> Job:
        """How it ends."""
        return [seen async for seen in self.jobs.watch(job.id, owner=job.owner)][-1]

    async def close(self) -> None:
        await self.jobs.close()
        await self.engine.close()
        await self.store.close()

    async def die(self) -> None:
        """As if the process were killed: nothing is given back, and its sign of life is gone."""
        queue = getattr(self.jobs._loop, "_queue", None)
        if queue is not None:
            queue.claims.clear()
        await self.close()
        self.jobs._live._here.clear()


@contextlib.asynccontextmanager
async def studio(place: Place, easel: Easel | None = None, **settings: Any) -> AsyncIterator[Studio]:
    """Jobs until the end of the context; they may have ended before."""
    made = Studio(place, easel or Easel(free=True), **settings)
    try:
        yield made
    finally:
        await made.close()


def pictures(place: Place) -> list[str]:
    """The names of all files of jobs."""
    folder = place.folder / "pictures"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
