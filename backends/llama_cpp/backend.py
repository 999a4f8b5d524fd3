"""The backend: which GGUF files there are, how each is to run, and opening one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from msgspec import Raw, structs

from backends import threads
from backends.base import Model, Section, Tell, tell_nobody
from backends.llama_cpp import gguf
from backends.llama_cpp.body import Limits
from backends.llama_cpp.embedding import EmbeddingModel
from backends.llama_cpp.engine import Engine, Start
from backends.llama_cpp.facts import Facts, find_facts
from backends.llama_cpp.gguf import Head
from backends.llama_cpp.honours import has_switch, honours_of
from backends.llama_cpp.inprocess import InProcess, Runner
from backends.llama_cpp.loaded import Loaded
from backends.llama_cpp.model import TextModel
from backends.llama_cpp.ranking import RerankModel
from backends.llama_cpp.supervisor import Worker
from canonical.errors import BackendError, ModelNotFound, Unsupported
from canonical.models import Capability, ModelDetails, ModelInfo
from canonical.requests import AS_CONFIGURED, LoadOptions

TINY = 20 * 1024 * 1024
"""Bytes of a file below which a second thread costs more at its barriers than it computes."""
_OPERATIONS = 1.2e9
"""Parameters times prompt tokens that one thread gets through in some 40 ms (measured: 150M, Q8_0, one EPYC core)."""
_BATCHES = (512, 256, 128, 64, 32, 16, 8)
_SERVED = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.EMBED, Capability.RERANK})
"""A model with none of these is neither listed nor opened."""
_PART = re.compile(r"-\d{5}-of-\d{5}\Z")
_GRAPH = 64 * 1024 * 1024
"""Working memory beside weights and cache, guessed upwards."""

EngineName = Literal["xllamacpp", "llama-cpp-python"]
Thinking = Literal["auto", "on", "off"]


class LlamaCppModelSettings(Section, frozen=True):
    """How one model runs; what is left out comes from the backend's section."""

    file: str = ""
    """Inside ``models_dir``; empty: the model's id with ``.gguf``."""
    mmproj: str = ""
    """Its vision projector, inside ``models_dir``."""
    context: int | None = None
    """Tokens of one request, prompt and answer together."""
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    batch: int | None = None
    flash_attention: bool | None = None
    thinking: Thinking | bool = "auto"
    """Whether a model that can think does so unasked; ``auto``: yes, as Ollama's clients expect."""
    temperature: float | None = None
    """For requests that say none; absent: llama.cpp's own 0.8."""


class LlamaCppSettings(Section, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    engine: EngineName = "xllamacpp"
    isolation: Literal["auto", "process", "none"] = "auto"
    """Where xllamacpp runs: in a worker process per model, or in this one (auto: see ``LlamaCppBackend.expose``)."""
    context: int = 4096
    slots: int = 4
    threads: int = 0
    """0: one for tiny models, else the physical cores, at most 8."""
    gpu_layers: int = -1
    """-1: all, where there is a GPU."""
    batch: int = 0
    """Prompt tokens computed at once, the grain in which a request can be stopped; 0: by the model's size."""
    flash_attention: bool | None = None


class LlamaCppBackend:
    """GGUF files of one folder, each a model. ``base``: what a relative ``models_dir`` counts from."""

    Settings = LlamaCppSettings
    ModelSettings = LlamaCppModelSettings

    def __init__(self, name: str, settings: LlamaCppSettings, base: Path = Path()) -> None:
        """Take the settings; nothing is read or loaded.

        Raises:
            ValueError: a figure that cannot be.
        """
        self.name = name
        self._settings = settings
        self._folder = (base / settings.models_dir).resolve()
        self._configured: dict[str, LlamaCppModelSettings] = {}
        self._heads: dict[Path, tuple[int, int, Head | None]] = {}
        self._exposed = False
        _check_figures(settings.context, settings.slots, settings.threads, settings.batch)

    def configure(self, id: str, settings: LlamaCppModelSettings) -> None:
        """Name a model and say how it runs.

        Raises:
            ValueError: a figure that cannot be, or a file that is not a GGUF file's name inside the folder.
        """
        _check_figures(settings.context or 1, settings.slots or 1, settings.threads or 1, settings.batch or 1)
        self._inside(settings.file or f"{id}.gguf")
        if settings.mmproj:
            self._inside(settings.mmproj)
        self._configured[id] = settings

    def expose(self) -> None:
        """Say that other machines can reach the gateway: with isolation ``auto``, models then load into workers."""
        self._exposed = True

    async def models(self) -> list[ModelInfo]:
        """Every configured model whose file is there, and every other GGUF file that is a model by itself."""
        return await threads.call(self._catalog, name="gguf")

    async def details(self, name: str) -> ModelDetails:
        """What the file says of itself. Raises ModelNotFound."""

        def look() -> ModelDetails:
            head, info, _ = self._found(name)
            return ModelDetails(
                info=info,
                # Clients fill the length that they read here, and what is served may be less than what was trained.
                metadata={
                    **gguf.metadata_json(head),
                    f"{head.family}.context_length": Raw(b"%d" % info.context_length),
                },
                template=head.template,
                license=head.text("general.license"),
            )

        return await threads.call(look, name="gguf")

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Model:  # noqa: ARG002
        """Load a model.

        Raises:
            ModelNotFound: there is no such file.
            Unsupported: the file is of a kind that has no ability here yet.
            BackendError: the engine cannot load it.
        """
        head, info, settings = await threads.call(lambda: self._found(name), name="gguf")
        able = info.capabilities
        if not able & _SERVED:
            raise Unsupported(f"{name!r} is neither a text model nor one of vectors or rankings", param="model")
        start = self._start(name, settings, head, able)
        runner = await self._runner(name, start)
        memory = info.size + head.cache_bytes(start.context * start.slots) + _GRAPH
        limits = Limits(
            context=start.context, fill=_fill(head), temperature=settings.temperature, engine=self._settings.engine
        )
        kind: type[Loaded] = EmbeddingModel if Capability.EMBED in able else TextModel
        if Capability.RERANK in able:
            kind = RerankModel
        model = kind(info, runner, slots=start.slots, limits=limits, memory=memory)
        if isinstance(model, TextModel):
            model.thinking = settings.thinking in {True, "on", "auto"}
            model.engine = self._settings.engine
            model.switch = has_switch(head.template)
            if Capability.CHAT in able:
                model.facts = await self._facts(runner, able)
            model.honours = honours_of(able, limits, model.facts, head.template)
        return model

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    async def _facts(self, runner: Runner, able: frozenset[Capability]) -> Facts:
        """What the model's template does. Raises what the engine raises; the model is then closed."""
        try:
            return await find_facts(runner, tools=Capability.TOOLS in able, thinks=Capability.REASONING in able)
        except BaseException:
            await runner.close()
            raise

    async def _runner(self, name: str, start: Start) -> Runner:
        engine, isolation = self._settings.engine, self._settings.isolation
        apart = isolation == "process" or (isolation == "auto" and self._exposed)
        if apart or engine == "llama-cpp-python":
            return await Worker.start(name, engine, start)
        try:
            return InProcess(await threads.call(lambda: _load(start), name="llama-load"))
        except (ImportError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).replace(f"{self._folder}{os.sep}", "")  # no reply tells where files are
            raise BackendError(f"the model {name!r} could not be loaded: {reason}") from error

    def _start(self, name: str, own: LlamaCppModelSettings, head: Head, able: frozenset[Capability]) -> Start:
        common = self._settings
        count = own.threads or common.threads or default_threads(head.size)
        context = self._context(own, head)
        layers = common.gpu_layers if own.gpu_layers is None else own.gpu_layers
        gpu = layers != 0 and common.engine == "xllamacpp" and _has_gpu()
        flash = common.flash_attention if own.flash_attention is None else own.flash_attention
        batch = own.batch or common.batch or (512 if gpu else default_batch(head.parameters, count))
        one = common.engine == "llama-cpp-python"
        slots = 1 if one else own.slots or common.slots
        ranking = Capability.RERANK in able
        embedding = ranking or Capability.EMBED in able
        return Start(
            path=str(self._inside(own.file or f"{name}.gguf")),
            projector=str(self._inside(own.mmproj)) if own.mmproj and not one else "",
            embedding=embedding,
            ranking=ranking,
            threads=count,
            context=context,
            slots=slots,
            # An encoder takes a text in one batch or not at all; a batch below the slots aborts the process.
            batch=context if embedding else max(min(batch, context), slots),
            gpu_layers=layers if gpu or one else 0,
            flash_attention=flash,
        )

    def _catalog(self) -> list[ModelInfo]:
        rows: dict[str, ModelInfo] = {}
        used = {settings.file or f"{id}.gguf" for id, settings in self._configured.items()}
        used |= {settings.mmproj for settings in self._configured.values()}
        found = sorted(path.name for path in self._folder.glob("*.gguf")) if self._folder.is_dir() else []
        for id in [*self._configured, *(name.removesuffix(".gguf") for name in found if name not in used)]:
            try:
                info = self._found(id)[1]
            except (ModelNotFound, BackendError):
                continue  # a file that is gone, half downloaded or no model costs itself alone
            if info.capabilities & _SERVED:
                rows[id] = info
        return list(rows.values())

    def _found(self, name: str) -> tuple[Head, ModelInfo, LlamaCppModelSettings]:
        """Raises ModelNotFound; BackendError where there is a file that cannot be served."""
        configured = self._configured.get(name)
        settings = configured or LlamaCppModelSettings()
        missing = ModelNotFound(f"model {name!r} not found", param="model")
        try:
            path = self._inside(settings.file or f"{name}.gguf")
            head = self._head(path)
        except (OSError, ValueError) as error:
            raise missing from error
        if not head.is_model or (configured is None and _PART.search(path.stem)):
            raise missing
        vision = bool(settings.mmproj) and self._settings.engine == "xllamacpp"
        info = gguf.model_info(name, head, vision=vision)
        return head, structs.replace(info, backend=self.name, context_length=self._context(settings, head)), settings

    def _context(self, own: LlamaCppModelSettings, head: Head) -> int:
        """Tokens of one request: as configured, but never more than the model was trained on."""
        context = own.context or self._settings.context
        return min(context, head.context_length) if head.context_length else context

    def _head(self, path: Path) -> Head:
        status = path.stat()
        key = (status.st_size, status.st_mtime_ns)
        known = self._heads.get(path)
        if known is None or known[:2] != key:
            try:
                head = gguf.read_head(path)
            except gguf.BadGguf:
                head = None
            known = self._heads[path] = (*key, head)
        if known[2] is None:
            raise gguf.BadGguf(f"{path.name} is not a GGUF file that can be served")
        return known[2]

    def _inside(self, file: str) -> Path:
        """The path of a GGUF file of the folder. Raises ValueError for any other name."""
        if not file.endswith(".gguf") or "\0" in file or len(file) > 255:
            raise ValueError(f"{file[:64]!r} is not the name of a .gguf file")
        path = (self._folder / file).resolve()
        if not path.is_relative_to(self._folder):
            raise ValueError(f"{file[:64]!r} is not inside the models folder")
        return path


def default_threads(size: int) -> int:
    """How many threads compute a model of so many bytes: barriers spin, so never more than there are real cores."""
    if size < TINY:
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, usable // 2 if usable > 2 else 1))


def default_batch(parameters: int, count: int) -> int:
    """Prompt tokens at once: small enough to stop within 100 ms where that is possible at all.

    A model too large for that at 8 tokens gets 32, which costs it less speed and still stops within a second or two.
    """
    tokens = _OPERATIONS * count / max(parameters, 1)
    return next((batch for batch in _BATCHES if batch <= tokens), 32)


def _check_figures(context: int, slots: int, count: int, batch: int) -> None:
    if not 1 <= slots <= 256:
        raise ValueError(f"slots must be 1 to 256, not {slots}")
    if not 1 <= context <= 2**24:
        raise ValueError(f"context must be 1 to {2**24} tokens, not {context}")
    if not 0 <= count <= 512:
        raise ValueError(f"threads must be 0 to 512, not {count}")
    if not 0 <= batch <= 65_536:
        raise ValueError(f"batch must be 0 to 65536, not {batch}")


def _fill(head: Head) -> tuple[int, int, int] | None:
    """The token ids of filling a gap, under their new or old names."""
    for names in (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")):
        keys = [f"tokenizer.ggml.{name}_token_id" for name in names]
        if all(key in head.metadata for key in keys):
            before, after, middle = (head.number(key) for key in keys)
            return before, after, middle
    return None


def _load(start: Start) -> Engine:
    from backends.llama_cpp.xllamacpp import XLlamaCpp  # 40 ms and 10 MB: only who loads pays

    return XLlamaCpp(start)


def _has_gpu() -> bool:
    from backends.llama_cpp.xllamacpp import has_gpu  # as above

    return has_gpu()
