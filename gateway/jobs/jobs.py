"""All of one gateway's jobs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import AsyncGenerator

from msgspec import structs

from canonical.errors import Busy, GatewayError, NotFound
from canonical.media import Blob
from canonical.painting import Paint, Painted, Step
from gateway.engine import Engine
from gateway.jobs.job import Job, Queue, Result
from gateway.painting import painted, prepared
from gateway.settings import Config


class JobNotFound(NotFound):
    """There is no such job, or it is another key's."""

    code = "job_not_found"


class Jobs:
    """What the image APIs talk to."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._engine = engine
        self._settings = config.jobs
        self._jobs: dict[str, Job] = {}
        self._pictures: dict[str, tuple[str, Blob]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        self._turn = asyncio.Semaphore(max(1, config.jobs.running))

    async def submit(self, request: Paint, *, owner: str, priority: int = 0, dialect: str = "") -> Job:
        """Check the request, make it complete and queue it; it is durable when this returns.

        Raises:
            GatewayError: as ``painting.prepared``.
            Busy: the queue is full; ``retry_after`` is an estimate of when there is room.
            StorageFailed: it cannot be kept.
        """
        del priority
        request = await prepared(self._engine, request)
        if sum(job.state == "queued" for job in self._jobs.values()) >= self._settings.waiting:
            raise Busy("too many pictures are waiting to be made", retry_after=10)
        total = (request.steps or 0) * request.n
        job = Job(id=str(uuid.uuid4()), owner=owner, request=request, dialect=dialect, created=time.time(), total=total)
        self._jobs[job.id] = job
        self._tasks[job.id] = asyncio.create_task(self._run(job.id))
        return job

    async def get(self, id: str, *, owner: str) -> Job:
        """A job as it is now. Raises JobNotFound."""
        job = self._jobs.get(id)
        if job is None or job.owner != owner:
            raise JobNotFound(f"job {id[:100]!r} not found")
        return job

    async def list(self, *, owner: str, states: tuple[str, ...] = (), limit: int = 100, after: str = "") -> list[Job]:
        """Jobs of the owner, the newest first; ``after``: those older than the one of this id. Raises JobNotFound."""
        mine = sorted((job for job in self._jobs.values() if job.owner == owner), key=lambda job: -job.created)
        if after:
            ids = [job.id for job in mine]
            if after not in ids:
                raise JobNotFound(f"job {after[:100]!r} not found")
            mine = mine[ids.index(after) + 1 :]
        return [job for job in mine if not states or job.state in states][:limit]

    async def cancel(self, id: str, *, owner: str) -> Job:
        """Stop it, or take it out of the queue, and wait until that is done; a job that is over stays as it is.

        Raises:
            JobNotFound.
        """
        job = await self.get(id, owner=owner)
        task = self._tasks.get(id)
        if not job.over and task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if not self._jobs[id].over:
                await self._put(structs.replace(self._jobs[id], state="cancelled", finished=time.time()))
        return self._jobs[id]

    async def remove(self, id: str, *, owner: str) -> None:
        """Forget it and its pictures; one that is not over is cancelled first. Raises JobNotFound."""
        job = await self.cancel(id, owner=owner)
        for result in job.results:
            self._pictures.pop(result.name, None)
        self._jobs.pop(id, None)

    async def watch(self, id: str, *, owner: str) -> AsyncGenerator[Job, None]:
        """The job now, and again at every change that is seen, up to the one with which it is over.

        Who is slow misses some on the way, never the last. Raises JobNotFound.
        """
        seen = await self.get(id, owner=owner)
        yield seen
        while not seen.over:
            async with self._changed:
                while self._jobs.get(id) is seen:
                    await self._changed.wait()
            seen = await self.get(id, owner=owner)
            yield seen

    async def follow(
        self, request: Paint, *, owner: str, priority: int = 0, dialect: str = ""
    ) -> AsyncGenerator[Job, None]:
        """``submit`` and ``watch`` for a client that waits: closing the generator cancels the job. Raises as ``submit``."""
        job = await self.submit(request, owner=owner, priority=priority, dialect=dialect)
        try:
            async with contextlib.aclosing(self.watch(job.id, owner=owner)) as jobs:
                async for job in jobs:
                    yield job
        finally:
            if not job.over:
                await self.cancel(job.id, owner=owner)

    async def picture(self, name: str, *, owner: str | None) -> Blob:
        """A finished picture; ``owner`` None: whosever it is. Raises NotFound, StorageFailed."""
        whose, blob = self._pictures.get(name, ("", None))
        if blob is None or owner not in {None, whose}:
            raise NotFound("there is no such picture")
        return blob

    async def queue(self) -> Queue:
        """How much there is to do, whosever it is; it raises nothing, and does not wait for a server that is away."""
        states = [job.state for job in self._jobs.values()]
        return Queue(waiting=states.count("queued"), running=states.count("running"))

    async def close(self) -> None:
        """Stop what runs; it is taken up again at the next start."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _put(self, job: Job) -> None:
        async with self._changed:
            self._jobs[job.id] = job
            self._changed.notify_all()

    async def _run(self, id: str) -> None:
        job = self._jobs[id]
        try:
            async with self._turn:
                await self._put(job := structs.replace(job, state="running", started=time.time()))
                async with contextlib.aclosing(painted(self._engine, job.request)) as events:
                    async for event in events:
                        match event:
                            case Step():
                                done = event.index * event.total + event.done
                                total = event.total * job.request.n
                                job = structs.replace(
                                    job, done=done, total=total, index=event.index, preview=event.preview or job.preview
                                )
                            case Painted():
                                name = f"{secrets.token_urlsafe(24)}.png"
                                self._pictures[name] = (job.owner, event.image)
                                made = Result(
                                    name=name, size=len(event.image.data), made=event.made, warnings=event.warnings
                                )
                                job = structs.replace(job, results=(*job.results, made))
                        await self._put(job)
                await self._put(structs.replace(job, state="done", finished=time.time()))
        except asyncio.CancelledError:
            await self._put(structs.replace(job, state="cancelled", finished=time.time()))
        except GatewayError as error:
            over = structs.replace(job, state="failed", error=error.message, code=error.code or "", status=error.status)
            await self._put(structs.replace(over, finished=time.time()))
