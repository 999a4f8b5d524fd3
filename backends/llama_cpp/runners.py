"""Where engines run: inside the gateway's process, which tiny models alone may, or each model in a worker of its own."""

from __future__ import annotations

from pathlib import Path

from backends.base import Tell, tell_nobody
from backends.llama_cpp.engine import Engine, Start
from backends.llama_cpp.inprocess import InProcess, Runner
from backends.llama_cpp.settings import LlamaCppSettings, Running
from backends.llama_cpp.starting import TINY
from backends.workers.deaths import Deaths
from backends.workers.memory import memory_bytes
from canonical.errors import BackendError, GatewayError


class Runners:
    """Starts the models of one backend."""

    def __init__(self, settings: LlamaCppSettings) -> None:
        self._settings = settings
        self._exposed = False
        self._deaths: dict[tuple[str, str, int], Deaths] = {}
        """Of each model's file that was ever isolated: a crash is not forgotten with the unloading."""

    def expose(self) -> None:
        """Say that other machines can reach the gateway: with isolation ``auto``, models then load into workers."""
        self._exposed = True

    def apart(self, start: Start, run: Running) -> bool:
        """Whether a model gets a process of its own.

        xllamacpp holds Python's lock while it loads (0.9 s for 400 MB, measured), so that with a large model nobody else
        would be answered meanwhile; nor could the load be stopped.
        """
        if self._settings.engine == "llama-cpp-python":
            return True
        if run.isolation == "none":
            return False
        limited = memory_bytes(run.memory_limit) > 0
        return run.isolation == "process" or self._exposed or limited or _weight(start) > TINY

    async def start(self, name: str, start: Start, run: Running, *, size: int = 0, tell: Tell = tell_nobody) -> Runner:
        """Load a model. ``size``: bytes of its file. Cancelling this ends the load, and returns when its memory is free.

        Raises:
            OutOfMemory, BackendError: it cannot be loaded.
        """
        if self.apart(start, run):
            return await self._isolated(name, start, run, size=size, tell=tell)
        try:
            return await InProcess.start(name, _load, start, size=size, hang=self._settings.hang, tell=tell)
        except (ImportError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise await self._reason(name, start, run, error) from error

    async def _isolated(
        self, name: str, start: Start, run: Running, *, size: int = 0, tell: Tell = tell_nobody
    ) -> Runner:
        # With all that watches over processes, which tiny models need not.
        from backends.llama_cpp.isolated import Isolated

        return await Isolated.start(
            name,
            self._settings.engine,
            start,
            size=size,
            memory=memory_bytes(run.memory_limit),
            hang=self._settings.hang,
            deaths=self._deaths.setdefault((name, start.path, size), Deaths()),
            tell=tell,
        )

    async def _reason(self, name: str, start: Start, run: Running, error: Exception) -> GatewayError:
        """Why a model could not be loaded: in this process the engine prints nothing, so another one tries it again."""
        try:
            runner = await self._isolated(name, start, run)
        except GatewayError as told:
            return told
        await runner.close()
        return BackendError(f"the model {name!r} could not be loaded: {type(error).__name__}")


def _weight(start: Start) -> int:
    """Bytes of all files that a load reads."""
    draft = start.draft.path if start.draft is not None else ""
    paths = filter(None, (start.path, start.projector, draft, *(lora.path for lora in start.loras)))
    return sum(Path(path).stat().st_size for path in paths if Path(path).exists())


def _load(start: Start) -> Engine:
    from backends.llama_cpp.xllamacpp import XLlamaCpp  # 40 ms and 10 MB: only who loads pays

    return XLlamaCpp(start)


def has_gpu() -> bool:
    """Whether the default engine sees one."""
    from backends.llama_cpp import xllamacpp  # as above

    return xllamacpp.has_gpu()
