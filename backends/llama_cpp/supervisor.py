"""The gateway's side of a worker process: starts it, asks it, and answers for it when it dies.

A death fails the requests that were running and no others; the next request starts a new process. Three deaths within a
minute are a pattern: then requests are refused for a while, longer each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

import msgspec

from backends.llama_cpp.engine import Kind, Start
from backends.llama_cpp.frames import (
    LENGTH,
    LIMIT,
    Ask,
    Chunk,
    Done,
    FromWorker,
    Open,
    Opened,
    Stop,
    Taken,
    ToWorker,
    frame,
    read_from_worker,
)
from canonical.errors import BackendError, BackendUnavailable

DEATHS = 3
WITHIN = 60.0
PAUSE, LONGEST_PAUSE = 5.0, 300.0
LOADING = 600.0
"""Seconds a model may take to load."""
STUCK = 5.0
"""Seconds between asking an answer to stop and killing the process that does not."""

_KEPT = ("PATH", "HOME", "LANG", "LC_", "TMP", "TEMP", "LD_", "DYLD_", "PYTHON", "VIRTUAL_ENV", "SYSTEMROOT")
_KEPT_NATIVE = ("OMP_", "GGML_", "LLAMA_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "VK_", "MTMD_", "COVERAGE_")


class _Answer:
    """One ask under way."""

    def __init__(self) -> None:
        self.changed, self.over = asyncio.Event(), asyncio.Event()
        self.chunks: list[bytes] = []
        self.failure: BackendError | None = None

    def end(self, failure: BackendError | None = None) -> None:
        self.failure = self.failure or failure
        self.over.set()
        self.changed.set()


class _Life:
    """One process, from its start to its death."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.opened: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answers: dict[int, _Answer] = {}
        self.wanted = True
        """Whether its end would be a surprise."""
        self.reading = asyncio.ensure_future(self._read())

    def tell(self, message: ToWorker) -> None:
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(frame(message))

    async def drain(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died; the reader tells everybody
            await self.process.stdin.drain()

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
        if self.process.returncode is None:
            try:
                async with asyncio.timeout(0.2 if self.wanted else 2.0):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    def _take(self, message: FromWorker) -> None:
        if isinstance(message, Opened):
            if not self.opened.done():
                self.opened.set_result(message.failure)
            return
        answer = self.answers.get(message.id)
        if answer is None:
            return
        if isinstance(message, Chunk):
            answer.chunks.append(message.data)
            answer.changed.set()
        elif isinstance(message, Done):
            answer.end(BackendError(f"the engine failed: {message.failure}") if message.failure else None)

    def how(self) -> str:
        """The way it ended, in words."""
        code = self.process.returncode
        if code is not None and code < 0:
            names = {number.value: number.name for number in signal.Signals}
            return f"by {names.get(-code, f'signal {-code}')}"
        return f"with status {code}"


class Worker:
    """A model in a worker process that is started again after it died."""

    def __init__(self, name: str, engine: Literal["xllamacpp", "llama-cpp-python"], start: Start) -> None:
        self._name, self._engine, self._start = name, engine, start
        self._ids = itertools.count()
        self._starting = asyncio.Lock()
        self._life: _Life | None = None
        self._deaths: deque[float] = deque(maxlen=16)
        self._pause = PAUSE
        self._closed = False
        self._watchers: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(cls, name: str, engine: Literal["xllamacpp", "llama-cpp-python"], start: Start) -> Worker:
        """Start a process and wait until the model is loaded.

        Raises:
            BackendError: the engine cannot load it.
        """
        worker = cls(name, engine, start)
        await worker._alive()
        return worker

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._life.process.pid if self._life is not None else None

    async def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """See ``Runner``."""
        async for chunks in self._ask(kind, body):
            yield chunks

    async def embed(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self._whole("embed", body)

    async def rerank(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self._whole("rerank", body)

    async def close(self) -> None:
        """See ``Runner``."""
        self._closed = True
        life, self._life = self._life, None
        if life is not None:
            life.wanted = False
            assert life.process.stdin is not None
            life.process.stdin.close()
            life.process.kill()  # it holds nothing that a gentler end would save
            await life.reading
        if self._watchers:
            await asyncio.wait(self._watchers)

    async def _whole(self, kind: Literal["embed", "rerank"], body: bytes) -> bytes:
        found = [chunk async for chunks in self._ask(kind, body) for chunk in chunks]
        return b"".join(found)

    async def _ask(self, kind: Kind | Literal["embed", "rerank"], body: bytes) -> AsyncGenerator[list[bytes], None]:
        life = await self._alive()
        id, answer = next(self._ids), _Answer()
        life.answers[id] = answer
        try:
            life.tell(Ask(id, kind, body))
            await life.drain()
            while True:
                await answer.changed.wait()
                answer.changed.clear()
                chunks, answer.chunks = answer.chunks, []
                if chunks:
                    yield chunks
                    life.tell(Taken(id, len(chunks)))
                elif answer.over.is_set():
                    break
                if answer.over.is_set():
                    answer.changed.set()
        finally:
            await self._settle(life, id, answer)
        if answer.failure is not None:
            raise answer.failure

    async def _settle(self, life: _Life, id: int, answer: _Answer) -> None:
        """Stop what still runs and wait for its end, through cancellations, for the slot's next user waits on that."""
        cancelled: asyncio.CancelledError | None = None
        if not answer.over.is_set():
            life.tell(Stop(id))
        deadline = asyncio.get_running_loop().time() + STUCK
        while not answer.over.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await answer.over.wait()
            except TimeoutError:
                if life.process.returncode is None:
                    life.process.kill()
                deadline += STUCK
            except asyncio.CancelledError as error:
                cancelled = error
        del life.answers[id]
        if cancelled is not None:
            raise cancelled

    async def _alive(self) -> _Life:
        """The running process, started if there is none.

        Raises:
            BackendUnavailable: it has died too often of late.
            BackendError: it cannot load the model.
        """
        async with self._starting:
            if self._closed:
                raise BackendUnavailable(f"the model {self._name!r} is being unloaded", status=503, retry_after=1)
            if self._life is not None:
                return self._life
            self._check_deaths()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "backends.llama_cpp.worker",
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,  # native code prints grammars, and so what clients wrote
                env={key: value for key, value in os.environ.items() if key.startswith(_KEPT + _KEPT_NATIVE)},
            )
            life = _Life(process)
            watcher = asyncio.ensure_future(self._watch(life))
            self._watchers.add(watcher)
            watcher.add_done_callback(self._watchers.discard)
            await self._opened(life)
            self._life = life
            return life

    async def _opened(self, life: _Life) -> None:
        life.tell(Open(self._engine, self._start))
        try:
            async with asyncio.timeout(LOADING):
                failure = await asyncio.shield(life.opened)
        except BaseException as error:
            life.wanted = isinstance(error, BackendError)
            if life.process.returncode is None:
                life.process.kill()
            if isinstance(error, TimeoutError):
                raise BackendError(f"the model {self._name!r} did not load within {LOADING:g} s") from error
            raise
        if failure:
            life.wanted = False
            reason = failure.replace(f"{Path(self._start.path).parent}{os.sep}", "")  # no reply tells where files are
            raise BackendError(f"the model {self._name!r} could not be loaded: {reason}")

    async def _watch(self, life: _Life) -> None:
        """Wait for the end of a process, and tell those who wait for its answers."""
        await life.reading
        if self._life is life:
            self._life = None
        if life.wanted:
            self._deaths.append(asyncio.get_running_loop().time())
        failure = f"the worker of the model {self._name!r} ended {life.how()}"
        if not life.opened.done():
            life.opened.set_exception(BackendError(failure))
            life.opened.exception()  # seen, also when nobody waits
        for answer in life.answers.values():
            answer.end(BackendError(failure))

    def _check_deaths(self) -> None:
        now = asyncio.get_running_loop().time()
        recent = [death for death in self._deaths if now - death < WITHIN]
        if len(recent) < DEATHS:
            if not recent:
                self._pause = PAUSE
            return
        left = recent[-1] + self._pause - now
        if left > 0:
            raise BackendUnavailable(
                f"the worker of the model {self._name!r} keeps dying; it is tried again in {left:.0f} s",
                status=503,
                retry_after=round(left + 0.5),
            )
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
