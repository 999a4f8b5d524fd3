"""One worker process as the gateway sees it, from its start to its death."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from backends.workers.frames import (
    LENGTH,
    LIMIT,
    Chunk,
    Done,
    FromWorker,
    Loading,
    Opened,
    Pulse,
    ToWorker,
    frame,
    read_from_worker,
)
from backends.workers.memory import oom_kills
from canonical.errors import BackendError

LOG = 16 * 1024
"""Bytes of what it printed last while loading that are looked at."""
_LINGER = 0.2
"""Seconds that a process whose pipe is closed has to end by itself."""

_KEPT = ("PATH", "HOME", "LANG", "LC_", "TMP", "TEMP", "LD_", "DYLD_", "PYTHON", "VIRTUAL_ENV", "SYSTEMROOT")
_KEPT_NATIVE = ("OMP_", "GGML_", "LLAMA_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "VK_", "MTMD_", "COVERAGE_")
"""What of the environment a worker needs; the rest may hold secrets."""


def environment() -> dict[str, str]:
    """Of a process of native code: no secret that only the gateway needs, and no debugger that holds up its end."""
    return {"GGML_NO_BACKTRACE": "1"} | {
        key: value for key, value in os.environ.items() if key.startswith(_KEPT + _KEPT_NATIVE)
    }


class Answer:
    """One ask under way."""

    def __init__(self) -> None:
        self.changed, self.over = asyncio.Event(), asyncio.Event()
        self.chunks: list[bytes] = []
        self.failure: BackendError | None = None

    def end(self, failure: BackendError | None = None) -> None:
        """It is over, well or not; the first word on that counts."""
        if not self.over.is_set():
            self.failure = failure
        self.over.set()
        self.changed.set()


class Life:
    """A process and what it says."""

    def __init__(self, process: Process, log: BinaryIO, folder: str, far: Callable[[float], None]) -> None:
        self.process = process
        self.opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers: dict[int, Answer] = {}
        self.wanted = True
        """Whether its end would be a surprise."""
        self.hung = False
        self.heard = asyncio.get_running_loop().time()
        """When it last said something."""
        self.pulse: Pulse | None = None
        """The last, until somebody has taken it."""
        self.said = ""
        """What it printed while loading, once it has ended; no client has written any of it."""
        self._far = far
        self._log = log
        self._folder = folder
        """For its temporary files, which a killed process leaves behind."""
        self._oom_kills = oom_kills()
        self.ended = asyncio.ensure_future(self._read())
        """Done when it is dead and its memory free."""

    @classmethod
    async def begin(cls, module: str, name: str, far: Callable[[float], None]) -> Life:
        """Start a process. ``name`` is for people who look at a list of processes."""
        log = tempfile.TemporaryFile()  # noqa: SIM115  # the life closes it
        folder = tempfile.mkdtemp(prefix="dragoman-")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                name,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env={**environment(), "TMPDIR": folder},
            )
        except BaseException:
            log.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(process, log, folder, far)

    def tell(self, message: ToWorker) -> None:
        """Say something; a dead process is told nothing."""
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(frame(message))

    async def drain(self) -> None:
        """Wait until it has taken most of what was said."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died; the reader tells everybody
            await self.process.stdin.drain()

    def kill(self) -> None:
        """End it; it holds nothing that a gentler end would save."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    @property
    def dead(self) -> bool:
        """Whether it has ended, also when nobody was told so yet."""
        if self.process.returncode is not None or not hasattr(os, "waitid"):
            return self.process.returncode is not None
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def how(self) -> str:
        """The way it ended, in words."""
        code = self.process.returncode
        if self.hung:
            return "hung, and was ended"
        if self.starved:
            return "was killed, most likely because memory ran out"
        if code is not None and code < 0:
            names = {number.value: number.name for number in signal.Signals}
            return f"ended by {names.get(-code, f'signal {-code}')}"
        return f"ended with status {code}"

    @property
    def starved(self) -> bool:
        """Whether the kernel seems to have killed it for want of memory."""
        return self.process.returncode == -signal.SIGKILL and oom_kills() > self._oom_kills

    async def _read(self) -> None:
        source = self.process.stdout
        assert source is not None
        try:
            while True:
                (length,) = LENGTH.unpack(await source.readexactly(LENGTH.size))
                if length > LIMIT:
                    break
                self._take(read_from_worker(await source.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError):
            pass
        try:
            async with asyncio.timeout(_LINGER):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        with self._log:
            self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - LOG))
            self.said = self._log.read().decode(errors="replace")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self, message: FromWorker) -> None:
        self.heard = asyncio.get_running_loop().time()
        match message:
            case Opened(failure):
                if not self.opened.done():
                    self.opened.set_result(failure)
            case Loading(part):
                self._far(part)
            case Pulse():
                self.pulse = message
            case Chunk(id, data) if id in self.answers:
                answer = self.answers[id]
                answer.chunks.append(data)
                answer.changed.set()
            case Done(id, failure) if id in self.answers:
                self.answers[id].end(BackendError(f"the engine failed: {failure}") if failure else None)
