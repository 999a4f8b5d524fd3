"""The backend: how each model is to run, and opening one. Which there are stands in ``files``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec import structs

from backends import threads
from backends.base import Model, Need, Tell, tell_nobody
from backends.honours import loaded_so
from backends.llama_cpp.body import Limits
from backends.llama_cpp.embedding import EmbeddingModel
from backends.llama_cpp.engine import Start
from backends.llama_cpp.facts import Facts, find_facts
from backends.llama_cpp.files import SERVED, Files, Offered
from backends.llama_cpp.gguf import Head
from backends.llama_cpp.honours import has_switch, honours_of
from backends.llama_cpp.inprocess import Runner
from backends.llama_cpp.loaded import Loaded
from backends.llama_cpp.managing import Managed
from backends.llama_cpp.model import TextModel
from backends.llama_cpp.need import need_of
from backends.llama_cpp.ranking import RerankModel
from backends.llama_cpp.runners import Runners, has_gpu
from backends.llama_cpp.settings import (
    LlamaCppModelSettings,
    LlamaCppSettings,
    Running,
    check_model,
    check_running,
    merged,
)
from backends.llama_cpp.starting import start_of
from canonical.errors import Unsupported
from canonical.models import Capability, ModelDetails, ModelInfo
from canonical.own import over
from canonical.requests import AS_CONFIGURED, LoadOptions

SPARE = 1024 * 1024 * 1024
"""Bytes that a worker of a model which was pulled or made may have beside twice its estimate."""


class LlamaCppBackend(Managed):
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
        self._files = Files(name, settings, base)
        self._runners = Runners(settings)
        check_running(settings, settings.engine)

    def configure(self, id: str, settings: LlamaCppModelSettings) -> None:
        """Name a model and say how it runs.

        Raises:
            ValueError: what cannot be, what the engine cannot do, or a file that is no GGUF file's name inside the folder.
        """
        check_model(settings, self._settings)
        self._files.configure(id, settings)

    def expose(self) -> None:
        """Say that other machines can reach the gateway: with isolation ``auto``, models then load into workers."""
        self._runners.expose()

    async def models(self) -> list[ModelInfo]:
        """Every configured model whose file is there, and every other GGUF file that is a model by itself."""
        return await threads.call(self._files.catalog, name="gguf")

    async def details(self, name: str) -> ModelDetails:
        """What the file says of itself. Raises ModelNotFound."""
        return await threads.call(lambda: self._files.details(name), name="gguf")

    async def all_details(self, name: str) -> ModelDetails:
        """The same with the vocabulary and the tensors. Raises ModelNotFound, BackendError."""
        return await threads.call(lambda: self._files.all_details(name), name="gguf")

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Model:
        """Load a model.

        Raises:
            ModelNotFound: there is no such file.
            InvalidRequest: ``options`` that cannot be.
            Unsupported: the file is of a kind that has no ability here yet.
            OutOfMemory, BackendError: the engine cannot load it.
        """
        offered = await threads.call(lambda: self._files.openable(name), name="gguf")
        head, info, settings = offered.head, offered.info, offered.settings
        able = info.capabilities
        if not able & SERVED:
            raise Unsupported(f"{name!r} is neither a text model nor one of vectors or rankings", param="model")
        start = self._start(offered, options)
        info = structs.replace(info, context_length=start.context)
        need = self._need(offered, start)
        run = merged(self._settings, settings)
        if not self._files.here_alone(offered):
            run = self._walled(run, need)
        runner = await self._runners.start(name, start, run, size=info.size, tell=tell)
        limits = Limits(
            context=start.context, fill=_fill(head), temperature=settings.temperature, engine=self._settings.engine
        )
        kind: type[Loaded] = EmbeddingModel if Capability.EMBED in able else TextModel
        if Capability.RERANK in able:
            kind = RerankModel
        model = kind(info, runner, slots=start.slots, limits=limits, memory=need.ram + need.vram)
        if offered.own:
            model.own = structs.replace(offered.own, load=AS_CONFIGURED)  # it is loaded so
        if isinstance(model, TextModel):
            model.thinking = settings.thinking in {True, "on", "auto"}
            model.engine = self._settings.engine
            model.switch = has_switch(head.template)
            if Capability.CHAT in able:
                model.facts = await self._facts(runner, able)
            model.honours = honours_of(able, limits, model.facts, head.template)
        model.honours = loaded_so(model.honours, _loaded(start))
        return model

    async def need(self, name: str, options: LoadOptions) -> Need:
        """What ``open`` would take. Raises ModelNotFound, InvalidRequest, BackendError."""

        def weigh() -> Need:
            offered = self._files.openable(name)
            return self._need(offered, self._start(offered, options))

        return await threads.call(weigh, name="gguf")

    async def close(self) -> None:
        """Nothing stays open beside the models."""

    def _start(self, offered: Offered, options: LoadOptions) -> Start:
        least = offered.own.load.context or offered.info.context_length
        if options.context is not None and 0 < options.context < least:
            # Who comes next says nothing of it, and must find what was configured.
            options = structs.replace(options, context=least)
        return start_of(offered, self._settings, over(options, offered.own.load), gpu=self._gpu())

    def _walled(self, run: Running, need: Need) -> Running:
        """How a model runs that was pulled or made: who did need not be the operator, and its template may render for ever."""
        if run.isolation == "none":
            return run
        # Far above the estimate. Drivers of GPUs reserve more than there is, so that nothing can be said beside one.
        limit = SPARE + 2 * need.ram if self._gpu() is False else None
        return structs.replace(run, isolation="process", memory_limit=run.memory_limit or limit)

    def _need(self, offered: Offered, start: Start) -> Need:
        return need_of(offered, start, gpu=self._gpu())

    def _gpu(self) -> bool | None:
        """Whether there is one; None: the engine is loaded in its workers alone, and only they know."""
        return None if self._settings.engine == "llama-cpp-python" else has_gpu()

    async def _facts(self, runner: Runner, able: frozenset[Capability]) -> Facts:
        """What the model's template does. Raises what the engine raises; the model is then closed."""
        try:
            return await find_facts(runner, tools=Capability.TOOLS in able, thinks=Capability.REASONING in able)
        except BaseException:
            await threads.settled(asyncio.ensure_future(runner.close()))
            raise


def _loaded(start: Start) -> LoadOptions:
    """A load in the words of requests."""
    return LoadOptions(
        context=start.context,
        batch=start.batch,
        threads=start.threads,
        gpu_layers=start.gpu_layers,
        main_gpu=start.main_gpu,
        mmap=start.mmap is not False,
    )


def _fill(head: Head) -> tuple[int, int, int] | None:
    """The token ids of filling a gap, under their new or old names."""
    for names in (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")):
        keys = [f"tokenizer.ggml.{name}_token_id" for name in names]
        if all(key in head.metadata for key in keys):
            before, after, middle = (head.number(key) for key in keys)
            return before, after, middle
    return None
