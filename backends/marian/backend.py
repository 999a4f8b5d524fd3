"""The backend: which models there are, what each takes, and opening one in a process of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from msgspec import Raw, json

from backends import threads
from backends.base import Model, Need, Tell, tell_nobody
from backends.extras import must_have
from backends.marian import asking, cache, detector
from backends.marian.asking import Orders
from backends.marian.folders import Folder, names, read_folder, state_of
from backends.marian.model import MarianModel, explain
from backends.marian.settings import MarianModelSettings, MarianSettings, kind_of
from backends.workers.deaths import Deaths
from backends.workers.memory import memory_bytes
from backends.workers.worker import Far, Job, Worker
from canonical.errors import ModelNotFound, Unsupported
from canonical.models import Capability, ModelDetails, ModelInfo
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, LoadOptions

PROCESS = 64 * 1024 * 1024
"""Bytes of a worker without a model, with all that it imports."""
WORKING = 32 * 1024 * 1024
"""Bytes that computing one batch takes for each way that is followed, in a model of the usual width."""
DETECTOR = 128 * 1024 * 1024
"""Bytes of the worker that tells languages."""
THREADS = 4
"""Beyond that, more threads gain nothing for batches of sentences."""
MAKING = 2.5
"""Memory of a conversion by the size of what is converted, pages of the mapped file included."""
_BYTES = {"int8": 1, "int16": 2, "float16": 2}


class MarianBackend:
    """Folders of one folder, each a model. ``base``: what relative folders count from."""

    Settings = MarianSettings
    ModelSettings = MarianModelSettings

    def __init__(self, name: str, settings: MarianSettings, base: Path = Path()) -> None:
        """Take the settings; nothing is read or loaded. Raises ValueError: a figure that cannot be."""
        self.name = name
        self._settings = settings
        self._root = (base / settings.models_dir).expanduser().resolve()
        self._cache = (base / settings.cache).expanduser().resolve()
        self._memory = memory_bytes(settings.memory_limit)
        self._configured: dict[str, MarianModelSettings] = {}
        self._known: dict[str, tuple[object, Folder | None]] = {}
        self._deaths: dict[tuple[str, str], Deaths] = {}

    def configure(self, id: str, settings: MarianModelSettings) -> None:
        """Say more of a model. Raises ValueError: a name that is none."""
        if not id or "/" in id or id.startswith("."):
            raise ValueError(f"{id[:64]!r} is not the name of a folder")
        self._configured[id] = settings

    async def models(self) -> list[ModelInfo]:
        """Every folder that is a model, also one that cannot be loaded as it is, and the one that tells languages."""
        return await threads.call(self._all, name="marian")

    async def details(self, name: str) -> ModelDetails:
        """What is known of it. Raises ModelNotFound."""
        if name == detector.NAME:
            return ModelDetails(info=self._detector())
        folder = await threads.call(lambda: self._find(name), name="marian")
        return ModelDetails(
            info=self._info(folder),
            metadata={
                "general.architecture": Raw(b'"marian"'),
                "general.parameter_count": Raw(b"%d" % folder.parameters),
                "marian.context_length": Raw(b"%d" % folder.config.max_position_embeddings),
                "marian.languages": Raw(json.encode(folder.pairs)),
            },
        )

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Model:  # noqa: ARG002  there are none for these
        """Load a model, converted before where it is not yet.

        Raises:
            NotImplementedHere: what it needs is not installed.
            ModelNotFound; Unsupported: it cannot be loaded as it lies there.
            StorageFailed: there is no room for the converted model.
            OutOfMemory, BackendError: it cannot be loaded.
        """
        if name == detector.NAME:
            must_have("translation", "py3langid")
            worker = await self._started("backends.marian.detector", name, b"", key="", slots=detector.Detector.slots)
            return detector.Detector(self._detector(), worker, memory=DETECTOR)
        folder = await threads.call(lambda: self._usable(name), name="marian")

        def far(part: float) -> None:
            tell(Progress(status="loading model", total=folder.size, completed=int(folder.size * part)))

        orders = asking.write(self._orders(name))
        worker = await self._started(
            "backends.marian.worker", name, orders, key=folder.key, slots=self._settings.slots, far=far
        )
        need = await threads.call(lambda: self._need(folder), name="marian")
        return MarianModel(self._info(folder), worker, slots=self._settings.slots, memory=need.ram)

    async def _started(
        self, module: str, name: str, start: bytes, *, key: str, slots: int, far: Far | None = None
    ) -> Worker:
        job = Job(name=name, module=module, start=start, slots=slots, memory=self._memory, hang=self._settings.hang)
        worker = Worker(job, self._deaths.setdefault((name, key), Deaths()), explain)
        try:
            await worker.start(far)
        except BaseException:
            await threads.settled(asyncio.ensure_future(worker.close()))
            raise
        return worker

    async def need(self, name: str, options: LoadOptions) -> Need:  # noqa: ARG002  there are none for these
        """What ``open`` would take. Raises as it does."""
        if name == detector.NAME:
            return Need(ram=DETECTOR)
        return await threads.call(lambda: self._need(self._usable(name)), name="marian")

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    def _orders(self, name: str) -> Orders:
        count = self._settings.threads or min(THREADS, len(os.sched_getaffinity(0)))
        return Orders(
            root=str(self._root),
            name=name,
            sources=self._configured.get(name, MarianModelSettings()).sources,
            cache=str(self._cache),
            compute_type=self._settings.compute_type,
            beam=self._settings.beam,
            threads=count,
        )

    def _all(self) -> list[ModelInfo]:
        there = list(names(self._root))
        there += [name for name in self._configured if name not in there]
        folders = (self._read(name) for name in there)
        return [*(self._info(folder) for folder in folders if folder is not None), self._detector()]

    def _read(self, name: str) -> Folder | None:
        """A model, read again only where something of it has changed."""
        try:
            state = state_of(self._root / name)
            known = self._known.get(name)
            if known is None or known[0] != state:
                sources = self._configured.get(name, MarianModelSettings()).sources
                known = self._known[name] = (state, read_folder(self._root, name, sources))
        except (OSError, ValueError):  # it goes meanwhile, or the name cannot be one of a file
            return None
        return known[1]

    def _find(self, name: str) -> Folder:
        folder = self._read(name) if name and "/" not in name and not name.startswith(".") else None
        if folder is None:
            raise ModelNotFound(f"model '{name}' not found", param="model")
        return folder

    def _usable(self, name: str) -> Folder:
        must_have("translation", "ctranslate2", "sentencepiece", "pysbd", "numpy")
        folder = self._find(name)
        if folder.trouble:
            raise Unsupported(f"{name!r} cannot be loaded: {folder.trouble}", param="model")
        return folder

    def _need(self, folder: Folder) -> Need:
        kind = kind_of(self._settings.compute_type)
        wide = 4 if self._settings.compute_type in {"float32", "bfloat16", "float16"} else _BYTES.get(kind, 4)
        weights = int(folder.parameters * wide * 1.1)
        work = WORKING * self._settings.beam * folder.config.d_model // 512
        converted = cache.place(self._cache, folder.name, kind, folder.key).is_dir()
        # While it is converted its largest matrix is there three times, in 32 bits; the file itself is only mapped.
        making, mapped = (0, 0) if converted else (int(MAKING * folder.size), folder.size)
        return Need(ram=PROCESS + max(weights + work, making), mapped=mapped)

    def _detector(self) -> ModelInfo:
        return ModelInfo(
            id=detector.NAME, backend=self.name, capabilities=frozenset({Capability.DETECT}), family=detector.NAME
        )

    def _info(self, folder: Folder) -> ModelInfo:
        return ModelInfo(
            id=folder.name,
            backend=self.name,
            capabilities=frozenset({Capability.TRANSLATE}),
            modified=folder.modified,
            size=folder.size,
            digest=folder.key,
            format="safetensors",
            family="marian",
            parameter_count=folder.parameters,
            quantization=self._settings.compute_type,
            context_length=folder.config.max_position_embeddings,
            embedding_length=folder.config.d_model,
            pairs=folder.pairs,
            trouble=folder.trouble,
        )
