"""The backend: RapidOCR with its own models, and with others that are configured; each set in a worker process of its own."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backends import threads
from backends.base import Need, Tell, tell_nobody
from backends.extras import must_have
from backends.ocr.settings import OcrModelSettings, OcrSettings, check
from backends.ocr.start import Start
from backends.seeing.asking import Lines, Text
from backends.seeing.machine import threads_for
from backends.workers.memory import memory_bytes
from canonical.errors import BackendError, ModelNotFound
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from canonical.seeing import Read, Reading

if TYPE_CHECKING:
    from backends.seeing.process import Looker
    from backends.workers.deaths import Deaths

MODEL = "ocr"
"""What RapidOCR's own models are called, which are always there."""
NEED = 700 * 1024 * 1024
"""Bytes that a worker takes at most (measured, with pages of 12 megapixels: 600 MB)."""
_FILES = ("find", "read", "characters")


class OcrBackend:
    """Readers of text in pictures. ``base``: what a relative ``models_dir`` counts from."""

    Settings = OcrSettings
    ModelSettings = OcrModelSettings

    def __init__(self, name: str, settings: OcrSettings, base: Path = Path()) -> None:
        """Take the settings; nothing is read or loaded. Raises ValueError."""
        check(settings)
        self.name = name
        self._settings = settings
        self._root = base / Path(settings.models_dir).expanduser()
        self._models = {MODEL: OcrModelSettings()}
        self._deaths: dict[str, Deaths] = {}
        """Of each model that ever ran: a crash is not forgotten with the unloading."""

    def configure(self, id: str, settings: OcrModelSettings) -> None:
        """Name a model, and say which files it is. Raises ValueError."""
        for key in _FILES:
            path = Path(getattr(settings, key))
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{key}: {str(path)[:80]!r} is no file inside models_dir")
        if settings.characters and not settings.read:
            raise ValueError("characters: they belong to a file for `read`")
        self._models[id] = settings

    async def models(self) -> list[ModelInfo]:
        """RapidOCR's own, and those of config.yaml."""
        return await threads.call(lambda: [self._info(name) for name in self._models], name="ocr")

    async def details(self, name: str) -> ModelDetails:
        """The row again. Raises ModelNotFound."""
        self._found(name)
        return ModelDetails(info=await threads.call(lambda: self._info(name), name="ocr"))

    async def need(self, name: str, options: LoadOptions) -> Need:  # noqa: ARG002  nothing of a load can be chosen
        """What ``open`` would take. Raises ModelNotFound."""
        self._found(name)
        return Need(ram=NEED)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> OcrModel:  # noqa: ARG002  as above
        """Load a model.

        Raises:
            ModelNotFound: it is none of these.
            NotImplementedHere: the extra is not installed.
            OutOfMemory, BackendError: it cannot be loaded.
        """
        chosen = self._found(name)
        must_have("vision", "rapidocr", "onnxruntime", "PIL")
        info = await threads.call(lambda: self._info(name), name="ocr")
        for key in _FILES:
            file = getattr(chosen, key)
            if file and not (self._root / file).is_file():
                raise BackendError(f"the model {name!r} lacks its file {file!r}")
        # With all that watches over processes: most gateways never need it.
        from backends.seeing.process import Looker
        from backends.workers.deaths import Deaths
        from backends.workers.worker import Job

        settings = self._settings
        start = Start(
            find=self._path(chosen.find),
            read=self._path(chosen.read),
            characters=self._path(chosen.characters),
            side=settings.side,
            score=settings.score,
            upside_down=settings.upside_down,
            threads=threads_for(settings.threads),
        )
        job = Job(
            name=name,
            module="backends.ocr.worker",
            start=msgspec.msgpack.encode(start),
            memory=memory_bytes(settings.memory_limit),
        )
        deaths = self._deaths.setdefault(name, Deaths())
        return OcrModel(info, await Looker.start(job, time=settings.time_limit, deaths=deaths))

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    def _found(self, name: str) -> OcrModelSettings:
        if name not in self._models:
            raise ModelNotFound(f"model {name!r} not found", param="model")
        return self._models[name]

    def _path(self, file: str) -> str:
        return str(self._root / file) if file else ""

    def _info(self, name: str) -> ModelInfo:
        chosen = self._models[name]
        own = [self._root / file for key in _FILES if (file := getattr(chosen, key))]
        spec = find_spec("rapidocr")
        if spec is not None and spec.origin and not (chosen.find and chosen.read):
            own.extend((Path(spec.origin).parent / "models").glob("*.onnx"))
        there = [file.stat() for file in own if file.is_file()]
        return ModelInfo(
            id=name,
            backend=self.name,
            capabilities=frozenset({Capability.READ}),
            modified=max((status.st_mtime_ns for status in there), default=0),
            size=sum(status.st_size for status in there),
            format="onnx",
            family="rapidocr",
        )


class OcrModel:
    """A loaded model."""

    honours = Honours()
    slots = 1
    """One picture after the other: each has all threads, and memory is for one."""

    def __init__(self, info: ModelInfo, looker: Looker) -> None:
        self.info = info
        self.looker = looker

    async def read(self, request: Read) -> Reading:
        """What is written in the picture.

        Raises:
            InvalidRequest: the picture is damaged.
            BackendTimeout, BackendError: it took too long, or failed.
        """
        answer = await self.looker.ask(Text(request.image.data))
        if not isinstance(answer, Lines):
            raise BackendError("the engine answered something else than was asked")
        return Reading(lines=answer.lines)

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=NEED)

    async def close(self) -> None:
        """Free its memory. No lease is open."""
        await self.looker.close()
