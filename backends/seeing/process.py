"""A model that looks at pictures, in a worker process of its own, as the gateway sees it."""

from __future__ import annotations

import asyncio

from backends import threads
from backends.seeing.asking import Answered, Asked, Refused, encode, read_answered
from backends.workers.deaths import Deaths
from backends.workers.worker import Job, Worker
from canonical.errors import BackendTimeout, InvalidRequest

_KIND = "look"


class Looker:
    """Is shown one picture after the other. ``time``: seconds that one may take; 0: as many as it takes."""

    def __init__(self, worker: Worker, time: float) -> None:
        self.worker = worker
        self._time = time

    @classmethod
    async def start(cls, job: Job, *, time: float, deaths: Deaths) -> Looker:
        """Start a process and wait until its model is loaded; cancelling this ends it.

        Raises:
            OutOfMemory, BackendError: it cannot be loaded.
        """
        looker = cls(Worker(job, deaths), time)
        try:
            await looker.worker.start()
        except BaseException:
            await threads.settled(asyncio.ensure_future(looker.close()))
            raise
        return looker

    async def ask(self, question: Asked) -> Answered:
        """What it answers, which is no refusal.

        Raises:
            InvalidRequest: the picture is damaged, or what was asked of it cannot be.
            BackendTimeout: it took too long; the process is ended unless it stops by itself.
            BackendError: the process died, or the engine failed.
        """
        try:
            async with asyncio.timeout(self._time or None):
                answer = read_answered(await self.worker.whole(_KIND, encode(question)))
        except TimeoutError as error:
            raise BackendTimeout(f"the picture took longer than {self._time:g} s") from error
        if isinstance(answer, Refused):
            raise InvalidRequest(answer.words, param=answer.param)
        return answer

    async def close(self) -> None:
        """End the process; done when its memory is free."""
        await self.worker.close()
