"""All jobs, as the image APIs see them. Their rows are the truth; what runs in this process is known sooner than its row."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Collection, Coroutine
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from canonical.errors import Busy, GatewayError, InvalidRequest, NotFound, StorageFailed
from canonical.media import Blob, image_type
from canonical.painting import Paint
from canonical.png import is_bomb
from gateway.engine import Engine
from gateway.jobs.estimate import cost, until_done, until_room
from gateway.jobs.files import Files, is_name, new_name, type_of
from gateway.jobs.job import Job, Queue
from gateway.jobs.live import Live, News
from gateway.jobs.loop import Loop
from gateway.jobs.over_redis.gateways import Spread
from gateway.jobs.rows import told
from gateway.jobs.work import IMAGES, Input, sha256
from gateway.painting import PAINT, prepared
from gateway.settings import Config
from gateway.store.job_row import FileRow, JobRow
from gateway.store.jobs import JobRows
from gateway.store.line import Line
from gateway.unbroken import unbroken

LOOK = 0.3
"""Seconds between two looks at the rows of jobs that are watched here and do not run here."""
SOON = 1.0
"""Seconds for the database to say how much there is to do."""
ATTEND = 2.0
"""Seconds between two looks for the first job that is not this gateway's: others may share the database."""
FIRST, TEND = 60.0, 3600.0
"""Seconds from the start, and from then on, between two looks for files whose time is over."""
ORPHAN = 3600.0
"""Seconds after which a file that no row knows is nobody's: its job may be on its way to the store until then."""
PAGE = 200
"""Files that are looked for at once."""
SHARES = 3
"""How often a file is tried to be shared that is deleted meanwhile."""
T = TypeVar("T")
logger = logging.getLogger("dragoman")


class JobNotFound(NotFound):
    """There is no such job, or it is another key's."""

    code = "job_not_found"


class Jobs:
    """What the image APIs talk to."""

    def __init__(self, engine: Engine, config: Config, rows: JobRows, files: Files) -> None:
        self._engine = engine
        self._settings = config.jobs
        self._rows = rows
        self._files = files
        self._live = Live()
        self._loop: Loop | Spread = (
            Spread(rows, files, self._live, config.jobs)
            if config.jobs.queue
            else Loop(engine, rows, files, self._live, config.jobs)
        )
        self._shared = bool(config.database)
        self._known = Queue()
        self._closed = False
        self._looking: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Line] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        """Go on with what was not over when the last process ended, and clear away what it left half done."""
        self._own(self._resume())
        self._own(self._tend())

    async def submit(self, request: Paint, *, owner: str, priority: int = 0, dialect: str = "") -> Job:
        """Check the request, make it complete and queue it; it is durable when this returns.

        Raises:
            GatewayError: as ``painting.prepared``.
            Busy: the queue is full; ``retry_after`` is an estimate of when there is room.
            StorageFailed: it cannot be kept.
        """
        return await self._submit(request, owner=owner, priority=priority, dialect=dialect)

    async def get(self, id: str, *, owner: str) -> Job:
        """A job as it is now. Raises JobNotFound, StorageFailed."""
        job = self._live.get(id)
        if job is None:
            found = await self._rows.several([id])
            if found and found[0].owner == owner:
                return await self._seen(found[0])
        if job is None or job.owner != owner:
            raise JobNotFound(f"job {id[:100]!r} not found")
        return job

    async def list(self, *, owner: str, states: tuple[str, ...] = (), limit: int = 100, after: str = "") -> list[Job]:
        """Jobs of the owner, the newest first; ``after``: those older than the one of this id.

        Raises:
            JobNotFound, StorageFailed.
        """
        rows = await self._rows.page(owner=owner, states=states, limit=limit, after=after)
        if rows is None:
            raise JobNotFound(f"job {after[:100]!r} not found")
        line = await self._rows.line() if any(not row.over for row in rows) else None
        return [self._live.get(row.id) or self._placed(row, line) for row in rows]

    async def cancel(self, id: str, *, owner: str) -> Job:
        """Stop it, or take it out of the queue, and wait until that is done; a job that is over stays as it is.

        Raises:
            JobNotFound, StorageFailed.
        """
        with self._live.watched(id) as news:
            version = news.version
            row = await self._rows.cancel(id, owner=owner)
            if row is None:
                raise JobNotFound(f"job {id[:100]!r} not found")
            job = told(row)
            if job.over:
                self._live.tell(job)
            else:
                self._own(self._loop.abort(id))
            while not job.over:
                job, version = await self._next(id, news, version)
            return job

    async def remove(self, id: str, *, owner: str) -> None:
        """Forget it and its pictures; one that is not over is cancelled first. Raises JobNotFound, StorageFailed."""
        await self.cancel(id, owner=owner)
        await unbroken(self._forget(id, owner))

    async def watch(self, id: str, *, owner: str) -> AsyncGenerator[Job, None]:
        """The job now, and again at every change that is seen, up to the one with which it is over.

        Who is slow misses some on the way, never the last. Raises JobNotFound.
        """
        with self._live.watched(id) as news:
            version = news.version
            job = await self.get(id, owner=owner)
            yield job
            while not job.over:
                job, version = await self._next(id, news, version)
                yield job

    async def follow(
        self, request: Paint, *, owner: str, priority: int = 0, dialect: str = ""
    ) -> AsyncGenerator[Job, None]:
        """``submit`` and ``watch`` for a client that waits: closing the generator cancels the job. Raises as ``submit``."""
        submitting = self._own(self._submit(request, owner=owner, priority=priority, dialect=dialect, waits=True))
        job: Job | None = None
        try:
            job = await asyncio.shield(submitting)
            async with contextlib.aclosing(self.watch(job.id, owner=owner)) as jobs:
                async for job in jobs:
                    yield job
        finally:
            if job is None or not job.over:
                await asyncio.shield(self._own(self._given_up(submitting, owner)))

    async def picture(self, name: str, *, owner: str | None) -> Blob:
        """A finished picture; ``owner`` None: whosever it is. Raises NotFound, StorageFailed."""
        whose = await self._rows.owner_of(name) if is_name(name) else None
        if whose is None or owner not in {None, whose}:
            raise NotFound("there is no such picture")
        return Blob(await self._files.get(name), type_of(name))

    async def known(self, digest: str, *, owner: str) -> Blob:
        """An image by the SHA-256 of its bytes: one that a job of the owner began with, or made. Raises NotFound, StorageFailed."""
        name = await self._rows.by_digest(digest, owner=owner)
        if name is None:
            raise NotFound("no picture with this digest is kept here")
        data = await self._files.get(name)
        return Blob(data, image_type(data) or type_of(name))

    async def queue(self) -> Queue:
        """How much there is to do, whosever it is; it raises nothing, and does not wait for a server that is away."""
        with contextlib.suppress(StorageFailed, TimeoutError):
            async with asyncio.timeout(SOON):
                counts = await self._rows.counts()
            self._known = Queue(waiting=counts.get("queued", 0), running=counts.get("running", 0))
        return structs.replace(self._known, reachable=self._loop.reachable)

    async def close(self) -> None:
        """Stop what runs; it is taken up again at the next start, but for what only a waiting client wanted."""
        self._closed = True
        await self._loop.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._files.close()

    # Inside

    async def _submit(self, request: Paint, *, owner: str, priority: int, dialect: str, waits: bool = False) -> Job:
        await self._check_room(owner)  # first: where there is none, many come at once, and are to be told soon
        request = await prepared(self._engine, request)
        for field in IMAGES:
            await _check_inflated(getattr(request, field), field)
        plain = structs.replace(request, **dict.fromkeys(IMAGES))
        try:
            encoded = msgspec.json.encode(plain)
        except UnicodeEncodeError as error:  # half a surrogate pair
            raise InvalidRequest("the prompt is no text", param="prompt") from error
        row = JobRow(
            id=str(uuid.uuid4()),
            owner=owner,
            priority=priority,
            dialect=dialect,
            model=request.model,
            cost=cost(request),
            created=self._rows.clock(),
            total=(request.steps or 0) * request.n,
            request=encoded,
        )
        images = {field: blob for field in IMAGES if (blob := getattr(request, field)) is not None}
        await unbroken(self._add(row, images, waits))
        self._wake()
        return await self._seen(row)

    async def _add(self, row: JobRow, images: dict[str, Blob], waits: bool) -> None:
        """Keep a job with the images that it begins with, which stand in one file however many jobs of its owner have them."""
        for _ in range(SHARES):
            inputs: dict[str, Input] = {}
            files: dict[str, FileRow] = {}
            shared: list[str] = []
            ours: list[str] = []
            size = 0
            added = "failed"
            try:
                for field, blob in images.items():
                    digest = await asyncio.to_thread(sha256, blob.data)
                    if digest not in files:
                        name = await self._rows.shareable(row.owner, digest)
                        if name:
                            shared.append(name)
                        else:
                            ours.append(name := new_name(input=True))
                            await self._files.put(name, blob.data)
                            size += len(blob.data)
                        files[digest] = FileRow(name, digest, True)
                    inputs[field] = Input(files[digest].name, blob.media_type)
                full = structs.replace(row, inputs=msgspec.json.encode(inputs))
                added = await self._rows.add(
                    full, list(files.values()), room=self._room, waits=waits, shared=shared, size=size
                )
            finally:
                if added != "kept" and ours:
                    with contextlib.suppress(StorageFailed):
                        await self._files.delete(ours)
            if added == "kept":
                return
            if added == "full":
                await self._refuse()
        raise StorageFailed("an image that it begins with was deleted meanwhile")

    async def _forget(self, id: str, owner: str) -> None:
        """A row and its files go together."""
        names = await self._rows.forget(id, owner=owner)
        if names is None:
            raise JobNotFound(f"job {id[:100]!r} not found")
        self._live.forget(id)
        await self._files.delete(names)

    def _room(self, waiting: int, running: int, mine: int) -> bool:
        """Whether one more may wait: one that can begin at once does not. A key that fills the queue keeps none from its first."""
        limit = self._settings.waiting if mine else self._settings.waiting * 2
        return waiting < limit + max(0, self._loop.slots - running)

    async def _check_room(self, owner: str) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._rows.line())
        line = await asyncio.shield(self._reading)  # one for all who come meanwhile
        mine = sum(job.owner == owner for job in line.waiting)
        if not self._room(len(line.waiting), len(line.running), mine):
            await self._refuse(line)

    async def _refuse(self, line: Line | None = None) -> None:
        line = line or await self._rows.line()
        after = until_room(line, now=self._rows.clock())
        raise Busy("too many pictures are waiting to be made", retry_after=round(after, 1))

    async def _given_up(self, submitting: asyncio.Task[Job], owner: str) -> None:
        """Cancel what a client waited for that has left, however far it had come."""
        with contextlib.suppress(GatewayError):
            job = await submitting
            await self.cancel(job.id, owner=owner)

    async def _next(self, id: str, news: News, version: int) -> tuple[Job, int]:
        """What is heard of a job after ``version``, and the version of that. Raises JobNotFound: it is forgotten."""
        self._look()
        await news.after(version)
        if news.job is None:
            raise JobNotFound(f"job {id[:100]!r} not found")
        return news.job, news.version

    async def _seen(self, row: JobRow) -> Job:
        """A row as a job, with its place where it waits."""
        return self._placed(row, None if row.over else await self._rows.line())

    def _placed(self, row: JobRow, line: Line | None) -> Job:
        job = told(row)
        if line is None or row.over:
            return job
        position, estimate = until_done(line, row.id, slots=self._loop.slots, now=self._rows.clock())
        note = self._loop.note if row.state == "queued" else ""
        return structs.replace(job, position=position, estimate=estimate, note=note)

    def _look(self) -> None:
        """See to it that somebody looks at the rows of what is watched and does not run here."""
        if self._looking is None or self._looking.done():
            self._looking = self._own(self._looks())

    async def _looks(self) -> None:
        while elsewhere := self._live.elsewhere:
            with contextlib.suppress(StorageFailed):
                await self._look_at(elsewhere.keys())
            await asyncio.sleep(LOOK)

    async def _look_at(self, ids: Collection[str]) -> None:
        versions = {id: news.version for id, news in self._live.elsewhere.items()}
        rows = {row.id: row for row in await self._rows.several(ids)}
        line = await self._rows.line() if any(not row.over for row in rows.values()) else None
        for id, news in self._live.elsewhere.items():
            if news.version != versions.get(id):
                continue  # it was heard of meanwhile, and what was read may be older
            if id not in rows:
                news.tell(None)
                continue
            job = self._placed(rows[id], line)
            if job != news.job:
                news.tell(job)

    async def _resume(self) -> None:
        """Find what is not over, and later what others put into the same database, until there is work here."""
        ours = not self._shared  # what this gateway had before has to be ended, if nothing else
        while True:
            with contextlib.suppress(GatewayError):
                if await self._rows.unfinished() and (ours or await self._paints()):
                    if not self._settings.queue:  # else a gateway that is dead is no dead worker
                        await self._rows.sweep(tries=self._settings.tries)
                    self._wake()
                    return
                ours = False
            await asyncio.sleep(ATTEND)

    async def _paints(self) -> bool:
        """Whether there is a model here for any of it."""
        return any(row.capabilities >= PAINT for row in await self._engine.models(PAINT))

    def _wake(self) -> None:
        """There is a job: it is begun here, unless this process is at its end."""
        if not self._closed:
            self._loop.wake()

    async def _tend(self) -> None:
        """Where there are files, let go of those whose time is over, now and then."""
        pause = FIRST
        while True:
            await asyncio.sleep(pause)
            pause = TEND
            with contextlib.suppress(StorageFailed):
                await self._clear()

    async def _clear(self) -> None:
        """Delete files that no job has: their process died before their row was written, or after it was deleted."""
        old = time.time() - ORPHAN
        names = [name async for name, written in self._files.names() if written < old]
        if names:
            await self._files.delete(await self._rows.evict())
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            known = await self._rows.known(page)
            await self._files.delete([name for name in page if name not in known])

    def _own(self, story: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _check_inflated(image: Blob | None, param: str) -> None:
    """Raises InvalidRequest for a small file that stands for much more than the picture that it says it is."""
    if image is not None and image.media_type == "image/png" and await asyncio.to_thread(is_bomb, image.data):
        raise InvalidRequest("the PNG inflates to far more than its header says", param=param)
