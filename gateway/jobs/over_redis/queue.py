"""SAQ's queue on a Redis server, as gateways and workers share it. Whatever it holds, the server may lose at any moment.

A job stands in it under its id and the number of its attempt, so that what a worker says that was given up is never taken for
what its successor says. What is known of its progress, and at its end of what became of it, is its ``meta``: SAQ's own states tell
only where it is. No clock of one machine is compared with another's: who is alive is what the server still knows of, and a job
is worked on as long as it is seen to change.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from msgspec import Struct
from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from saq.job import Job, Status
from saq.queue.redis import RedisQueue

from gateway.jobs.job import Result
from gateway.jobs.work import Outcome

if TYPE_CHECKING:
    from saq.types import WorkerInfo

NAME = "dragoman"
FUNCTION = "paint"
BEAT = 1.0
"""Seconds between two signs of life of a job that is worked on, and of a worker."""
ALIVE = 5
"""Seconds after its last sign of life at which a worker counts as gone."""
KEPT = 86_400
"""Seconds for which the end of a job waits for its gateway to read it."""
ABANDONED = 600
"""Seconds for which an attempt that was given up is remembered, so that its worker hears of it."""
AGAIN = 1.0
"""Seconds before a server that is away is asked again."""
WAIT = 1.0
"""Seconds for which a worker without a job waits at the server."""
PREVIEW = 60
"""Seconds for which a preview is kept."""
AWAY = (RedisError, OSError, asyncio.TimeoutError)
"""What a server that is away, starts, or is not ours to use raises."""
NO_JOB = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What reading raises where somebody else has written something else."""
STILL = 60.0
"""Seconds without a change after which nobody works on a job any more."""
SLOTS = 1000
"""Jobs that one worker can be believed to work on at once."""


class Said(Struct, frozen=True):
    """What a worker says of a job: SAQ's ``meta``."""

    worker: str = ""
    done: int = 0
    total: int = 0
    index: int = 0
    preview: int = 0
    """How many there were; the last stands beside the job."""
    preview_type: str = ""
    results: tuple[Result, ...] = ()
    """What this attempt has made."""
    outcome: Outcome | None = None
    """How it ended."""


def check_url(url: str) -> None:
    """Raises ValueError, which does not quote it, where ``url`` is none of a Redis server."""
    words = "a queue is redis://:password@host:6379/0, or rediss:// with TLS"
    try:
        split = urlsplit(url)
        fine = split.scheme in {"redis", "rediss"} and bool(split.hostname) and split.port != 0
        aioredis.from_url(url)
    except (ValueError, TypeError):
        raise ValueError(words) from None
    if not fine:
        raise ValueError(words)


class SharedQueue(RedisQueue):
    """The queue of one Redis database."""

    def __init__(self, url: str) -> None:
        redis = aioredis.from_url(
            url,
            socket_connect_timeout=3,
            socket_timeout=5,
            socket_keepalive=True,
            health_check_interval=10,
            retry=Retry(NoBackoff(), 1),
        )
        super().__init__(redis, NAME)
        # It would log whole jobs, prompts and all.
        logging.getLogger("saq").setLevel(logging.CRITICAL)
        self.closing = False
        """Whether no more jobs are to be taken."""
        self._members = self.namespace("workers")
        self._still: dict[bytes, tuple[int, float]] = {}
        """When jobs of any gateway last changed, by their workers' clocks, and since when that is known, by ours."""
        self._any = cast("Any", redis)
        """The same, for what its types do not know to be awaited."""

    # A worker's half

    async def dequeue(self, timeout: float = 0.0, poll_interval: float = 0.0) -> Job | None:  # noqa: ARG002, ASYNC109  SAQ's
        """The next job; None, soon, where there is none or no server."""
        if self.closing:
            await asyncio.sleep(WAIT)
            return None
        try:
            return await super().dequeue(WAIT)
        except AWAY:
            await asyncio.sleep(AGAIN)
            return None
        except NO_JOB:
            return None

    async def jobs(self, job_keys: Iterable[str]) -> list[Job | None]:
        """As they stand there; none of them where there is no server. SAQ looks here for what is to be stopped."""
        try:
            return await self.look(list(job_keys))
        except AWAY:
            return []

    async def sweep(self, lock: int = 60, abort: float = 5.0) -> list[str]:  # noqa: ARG002  SAQ's
        """The gateways look after what they have handed over, by clocks of their own."""
        return []

    async def schedule(self, lock: int = 1) -> list[str]:  # noqa: ARG002
        """Nothing is put off."""
        return []

    async def write_worker_info(self, worker_id: str, info: WorkerInfo, ttl: int) -> None:  # noqa: ARG002
        """Show that a worker is alive. The server counts the time."""
        if self.closing:
            return
        with contextlib.suppress(*AWAY):
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.setex(self._worker(worker_id), ALIVE, json.dumps(info))
                pipe.sadd(self._members, worker_id)
                await pipe.execute()

    async def leave(self, worker_id: str) -> None:
        """A worker is gone."""
        with contextlib.suppress(*AWAY):
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.delete(self._worker(worker_id))
                pipe.srem(self._members, worker_id)
                await pipe.execute()

    async def show_preview(self, key: str, data: bytes) -> None:
        """Keep a half-finished picture for a moment."""
        await self.redis.setex(self._preview(key), PREVIEW, data)

    # A gateway's half: all of it raises one of ``AWAY``

    async def look(self, keys: Sequence[str]) -> list[Job | None]:
        """Jobs as they stand there."""
        if not keys:
            return []
        return [self._read(found) for found in await self.redis.mget([self.job_id(key) for key in keys])]

    async def taken(self) -> int:
        """How many jobs of any gateway wait for a worker or are worked on; what only stands in their way is swept away.

        That is what somebody else has written there, and what neither a gateway nor a worker looks after any more.
        """
        now = asyncio.get_running_loop().time()
        ids: list[bytes] = await self.redis.zrange(self._incomplete, 0, -1)
        still: dict[bytes, tuple[int, float]] = {}
        gone = []
        for id, stored in zip(ids, await self.redis.mget(ids) if ids else [], strict=True):
            job = self._read(stored)
            known = job is not None and self.job_id(job.key).encode() == id
            if job is not None and known:
                touched, since = self._still.get(id, (-1, now))
                still[id] = (job.touched, since if touched == job.touched else now)
            if not known or now - still[id][1] > STILL:
                gone.append(id)
        self._still = still
        if gone:
            async with self.redis.pipeline(transaction=True) as pipe:
                pipe.zrem(self._incomplete, *gone)
                for id in gone:
                    pipe.lrem(self._queued, 0, cast("Any", id))
                    pipe.lrem(self._active, 0, cast("Any", id))
                await pipe.execute()
        return len(ids) - len(gone)

    async def slots(self) -> int:
        """How many jobs all workers together can work on at once."""
        members = list(await self._any.smembers(self._members))
        if not members:
            return 0
        slots = 0
        for member, found in zip(
            members,
            await self.redis.mget([self._worker(member.decode(errors="replace")) for member in members]),
            strict=True,
        ):
            try:
                slots += min(max(0, int((json.loads(found).get("metadata") or {}).get("slots", 1))), SLOTS)
            except (ValueError, TypeError, AttributeError, OverflowError):  # it is gone, or is no worker
                await self._any.srem(self._members, member)
        return slots

    async def hand(self, key: str, order: str, meta: dict[str, Any]) -> None:
        """Give a job to whichever worker takes it first."""
        await self.enqueue(
            Job(function=FUNCTION, key=key, kwargs={"order": order}, timeout=0, retries=1, ttl=KEPT, meta=meta)
        )

    async def take_back(self, key: str) -> bool:
        """Take a job back that no worker has taken yet. False: one has."""
        job_id = self.job_id(key)
        if not await self._any.lrem(self._queued, 0, job_id):
            return False
        await self.forget(key)
        return True

    async def give_up(self, job: Job, words: str) -> None:
        """Have its worker stop, if it is there after all."""
        await self.abort(job, words)
        stored = await self.job(job.key)
        if stored is not None and stored.status == Status.ABORTING:
            await self.redis.expire(self.job_id(job.key), ABANDONED)

    async def forget(self, key: str) -> None:
        """Its end is known: nothing of it is needed any more."""
        job_id = self.job_id(key)
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.lrem(self._active, 0, job_id)
            pipe.zrem(self._incomplete, job_id)
            pipe.delete(job_id, self._preview(key))
            await pipe.execute()

    async def preview(self, key: str) -> bytes | None:
        """The last half-finished picture."""
        found: bytes | None = await self.redis.get(self._preview(key))
        return found

    @contextlib.asynccontextmanager
    async def news(self) -> Any:
        """Something that can be waited for: each change of any job is a message."""
        pubsub = self.redis.pubsub()
        try:
            await pubsub.psubscribe(f"{self.job_id('')}*")
            yield pubsub
        finally:
            with contextlib.suppress(*AWAY):
                await cast("Any", pubsub).aclose()

    async def disconnect(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(*AWAY):
            await self.redis.aclose()

    def _read(self, stored: bytes | None) -> Job | None:
        """A job as it is stored; None: it is not there, or what is there is none."""
        try:
            return self.deserialize(stored)
        except NO_JOB:
            return None

    def _worker(self, id: str) -> str:
        return self.namespace(f"worker:{id}")

    def _preview(self, key: str) -> str:
        return self.namespace(f"preview:{key}")
