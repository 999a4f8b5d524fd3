"""The backend: CLIP models of one folder, each in a worker process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends import threads
from backends.base import Need, Tell, tell_nobody
from backends.clip.folders import Folders, Offered
from backends.clip.settings import ClipModelSettings, ClipSettings, check
from backends.clip.start import Start
from backends.extras import must_have
from backends.seeing.asking import Labels, Shares
from backends.seeing.machine import may_have_gpu, threads_for
from backends.workers.memory import memory_bytes
from canonical.errors import BackendError
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from canonical.seeing import Match

if TYPE_CHECKING:
    from backends.seeing.process import Looker
    from backends.workers.deaths import Deaths

MIB = 1024 * 1024
BASE = 450 * MIB
"""Of a worker with torch and transformers in it (measured: 400), before any weights."""
WORK = 150 * MIB
"""A picture of middling size, and what becomes of it on its way through the layers."""
SPARE = 1536 * MIB
"""What a worker may have beside its weights twice: the largest picture that is accepted needs 500 MiB to decode."""


class ClipBackend:
    """CLIP models. ``base``: what a relative ``models_dir`` counts from."""

    Settings = ClipSettings
    ModelSettings = ClipModelSettings

    def __init__(self, name: str, settings: ClipSettings, base: Path = Path()) -> None:
        """Take the settings; nothing is read or loaded.

        Raises:
            ValueError: a value that cannot be.
        """
        check(settings)
        self.name = name
        self._settings = settings
        self._folders = Folders(name, settings, base)
        self._deaths: dict[str, Deaths] = {}
        """Of each model that ever ran: a crash is not forgotten with the unloading."""

    def configure(self, id: str, settings: ClipModelSettings) -> None:
        """Name a model, and say how it is asked. Raises ValueError."""
        self._folders.configure(id, settings)

    async def models(self) -> list[ModelInfo]:
        """Every folder with a CLIP model, also one that cannot be loaded as it is."""
        return await threads.call(self._folders.catalog, name="clip")

    async def details(self, name: str) -> ModelDetails:
        """The row again. Raises ModelNotFound."""
        return ModelDetails(info=(await threads.call(lambda: self._folders.find(name), name="clip")).info)

    async def need(self, name: str, options: LoadOptions) -> Need:  # noqa: ARG002  nothing of a load can be chosen
        """What ``open`` would take. Where only torch knows whether there is a GPU, all counts as RAM. Raises as ``open``."""
        size = (await self._usable(name)).info.size
        if self._settings.device == "cuda":
            return Need(ram=BASE + WORK + size, vram=size + BASE)
        return Need(ram=BASE + WORK + int(size * 1.2))

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> ClipModel:  # noqa: ARG002  as above
        """Load a model.

        Raises:
            ModelNotFound: there is no such folder.
            Unsupported: it cannot be loaded as it lies there.
            NotImplementedHere: the extra is not installed.
            OutOfMemory, BackendError: it cannot be loaded.
        """
        must_have("vision", "torch", "transformers", "PIL")
        offered = await self._usable(name)
        # With all that watches over processes: most gateways never need it.
        from backends.seeing.process import Looker
        from backends.workers.deaths import Deaths
        from backends.workers.worker import Job

        settings = self._settings
        start = Start(
            path=str(offered.path),
            template=offered.template,
            device=settings.device,
            dtype=settings.dtype,
            threads=threads_for(settings.threads),
        )
        job = Job(
            name=name, module="backends.clip.worker", start=msgspec.msgpack.encode(start), memory=self._limit(offered)
        )
        looker = await Looker.start(job, time=settings.time_limit, deaths=self._deaths.setdefault(name, Deaths()))
        need = await self.need(name, options)
        return ClipModel(offered.info, looker, need.ram + need.vram)

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    async def _usable(self, name: str) -> Offered:
        return await threads.call(lambda: self._folders.usable(name), name="clip")

    def _limit(self, offered: Offered) -> int:
        settings = self._settings
        if settings.memory_limit is not None:
            return memory_bytes(settings.memory_limit)
        # Drivers of GPUs reserve more than there is.
        here = settings.device == "cpu" or (settings.device == "auto" and not may_have_gpu())
        return SPARE + 2 * offered.info.size if here else 0


class ClipModel:
    """A loaded model. ``memory`` is an estimate in bytes."""

    honours = Honours()
    slots = 1
    """One picture after the other: each has all threads."""

    def __init__(self, info: ModelInfo, looker: Looker, memory: int) -> None:
        self.info = info
        self.looker = looker
        self._memory = memory

    async def match(self, request: Match) -> tuple[float, ...]:
        """A share for each label, in their order; together they are 1.

        Raises:
            InvalidRequest: the picture is damaged, or a label is longer than the model reads.
            BackendTimeout, BackendError: it took too long, or failed.
        """
        answer = await self.looker.ask(Labels(request.image.data, request.labels))
        if not isinstance(answer, Shares) or len(answer.shares) != len(request.labels):
            raise BackendError("the engine answered something else than was asked")
        return answer.shares

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._memory)

    async def close(self) -> None:
        """Free its memory. No lease is open."""
        await self.looker.close()
