"""Runs an engine in a worker process of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import msgspec

from backends import threads
from backends.base import Tell, tell_nobody
from backends.llama_cpp.engine import EngineName, Kind, Start
from backends.llama_cpp.loading import Gauge
from backends.llama_cpp.worker import Orders
from backends.workers.deaths import Deaths
from backends.workers.failing import Failed, could_not
from backends.workers.worker import Job, Worker
from canonical.errors import GatewayError

_ERROR = re.compile(r"^[\d.]* ?E +(?:(?:cmn|srv|llama|ggml) +)?(.+)$", re.MULTILINE)
"""A line of llama.cpp's log that tells of an error; the first one tells why, the others what followed from it."""


class Isolated:
    """An engine behind a wall; see ``Runner``."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    @classmethod
    async def start(
        cls,
        name: str,
        engine: EngineName,
        start: Start,
        *,
        size: int = 0,
        memory: int = 0,
        hang: float = 60.0,
        deaths: Deaths | None = None,
        tell: Tell = tell_nobody,
    ) -> Isolated:
        """Start a process and wait until the model is loaded. ``size``: bytes of its file.

        Raises:
            OutOfMemory: it does not fit, as far as one can tell.
            BackendError: the engine cannot load it.
        """
        job = Job(
            name=name,
            module="backends.llama_cpp.worker",
            start=msgspec.msgpack.encode(Orders(engine, start)),
            slots=start.slots,
            memory=memory,
            hang=hang,
        )
        isolated = cls(Worker(job, deaths, explain))
        gauge = Gauge(start.path, size, tell)
        # One engine tells how far it is; of the other one only the kernel knows.
        try:
            await isolated.worker.start(gauge.far, gauge.look if engine == "xllamacpp" else None)
        except BaseException:
            await threads.settled(asyncio.ensure_future(isolated.close()))
            raise
        return isolated

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self.worker.pid

    def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """See ``Runner``."""
        return self.worker.stream(kind, body)

    async def embed(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self.worker.whole("embed", body)

    async def rerank(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await self.worker.whole("rerank", body)

    async def close(self) -> None:
        """See ``Runner``."""
        await self.worker.close()


def explain(name: str, failed: Failed) -> GatewayError:
    """Why a model could not be loaded, as far as llama.cpp tells; no reply tells where files are."""
    told = _ERROR.search(failed.said)
    return could_not(name, failed, told[1] if told and not failed.starved else "")
