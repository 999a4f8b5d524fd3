"""The gateway's half of the queue on Redis: hands jobs over to workers, follows them, and writes what becomes of them into their rows.

It has the verbs of ``Loop``. No more is handed over than the workers can take at once, so that priorities and turns stay what they
are. The server may lose all that it has: rows tell what was handed over, and what is not there after a while is handed over anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from canonical.errors import GatewayError, NotFound, StorageFailed
from canonical.media import Blob
from gateway.jobs.files import Files
from gateway.jobs.job import Result
from gateway.jobs.live import Live
from gateway.jobs.loop import NOTE
from gateway.jobs.rows import ending_of, order_of, told
from gateway.jobs.work import Outcome
from gateway.settings import Jobs as Settings
from gateway.store.job_row import Ending, FileRow, JobRow
from gateway.store.jobs import JobRows

if TYPE_CHECKING:
    from saq.job import Job as Held

    from gateway.jobs.over_redis.queue import SharedQueue

POLL = 0.5
"""Seconds between two looks at all, should a message be lost."""
PAUSE = 0.05
"""Seconds between two looks at least, however many messages come."""
SWEEP = 5.0
"""Seconds between two looks for what dead gateways have left."""
EVICT = 60.0
DEAD = 4.0
"""Seconds without a sign of life after which a job's worker is dead."""
GONE = 5.0
"""Seconds for which a job that the server has lost may be told of by its worker."""
TAKEN = 5.0
"""Seconds after which a job that no worker has begun is taken back."""
PAST = 10.0
"""Seconds for which the server keeps what is over: its worker has a last word to say."""
UNREACHABLE = "the server over which workers get jobs cannot be reached; it goes on when that is back"
NOBODY = "no worker is there"
ELSEWHERE = (
    "the worker keeps pictures where this gateway does not find them: `jobs.results` must be one place for all of them"
)
logger = logging.getLogger("dragoman")


class _Handed:
    """A job that is in the hands of workers."""

    def __init__(self, claim: JobRow, now: float) -> None:
        self.claim = claim
        self.key = f"{claim.id}.{claim.attempt}"
        """The attempt's own name: who was given up speaks of another one."""
        self.order = order_of(claim)
        self.results = self.order.results
        self.first = len(self.results)
        """How many pictures an earlier attempt has made."""
        self.begun = claim.done > 0
        self.stopping = claim.stopping
        self.seen = now
        """When it last changed there, by our clock."""
        self.touched = 0
        """When that was, by its worker's."""
        self.previews = 0
        self.noted = 0.0


class Spread:
    """All that this gateway has handed over."""

    def __init__(self, rows: JobRows, files: Files, live: Live, settings: Settings) -> None:
        self.reachable = True
        self._rows = rows
        self._files = files
        self._live = live
        self._settings = settings
        self._slots = 0
        self._handed: dict[str, _Handed] = {}
        self._past: dict[str, float] = {}
        """Keys of what is over here, and since when."""
        self._good: set[str] = set()
        """Workers whose pictures were found."""
        self._news = asyncio.Event()
        self._more = True
        """Whether something may wait to be handed over."""
        self._swept = self._evicted = -EVICT
        self._task: asyncio.Task[None] | None = None

    @property
    def slots(self) -> int:
        """How many jobs the workers can work on at once, as far as is known."""
        return self._slots

    @property
    def note(self) -> str:
        """What all wait for."""
        if not self.reachable:
            return UNREACHABLE
        return "" if self._slots or self._task is None else NOBODY

    def start(self) -> None:
        """Hand jobs over from now on; a second call changes nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="jobs")

    def wake(self) -> None:
        """There is a job: hand it over as soon as somebody can take it."""
        self.start()
        self._more = True
        self._news.set()

    async def abort(self, id: str) -> None:
        """Have what its row says is to be stopped stopped."""
        if (handed := self._handed.get(id)) is not None:
            handed.stopping = True
        self._news.set()

    async def stop(self, grace: float = 0) -> None:  # noqa: ARG002  what runs, runs elsewhere
        """Follow nothing more: the next gateway goes on from the rows."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # Inside

    async def _run(self) -> None:
        from gateway.jobs.over_redis.queue import AGAIN, AWAY, SharedQueue

        queue = SharedQueue(self._settings.queue)
        try:
            while True:
                try:
                    async with queue.news() as messages:
                        await self._follow(queue, messages)
                except AWAY as error:
                    await self._without(error)
                except StorageFailed:
                    pass
                except Exception:
                    logger.exception("following the workers failed")
                await asyncio.sleep(AGAIN)
        finally:
            await queue.disconnect()

    async def _follow(self, queue: SharedQueue, messages: Any) -> None:
        async def listen() -> None:
            while True:
                if await messages.get_message(ignore_subscribe_messages=True, timeout=POLL) is not None:
                    self._news.set()

        listening = asyncio.ensure_future(listen())
        try:
            while not listening.done():
                self._news.clear()
                await self._round(queue)
                await asyncio.sleep(PAUSE)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL):
                        await self._news.wait()
            listening.result()
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _round(self, queue: SharedQueue) -> None:
        now = self._now()
        slots = await queue.slots()
        if not self.reachable:
            self._back(now)
        if slots != self._slots:
            self._more, self._slots = True, slots
        await self._sweep(now)
        await self._heed_rows()
        handed = list(self._handed.values())
        for one, job in zip(handed, await queue.look([one.key for one in handed]), strict=True):
            await self._mirror(queue, one, job)
        await self._clear(queue)
        if self._more:
            await self._hand_over(queue)

    async def _hand_over(self, queue: SharedQueue) -> None:
        room = self._slots - await queue.taken()
        while room > 0:
            claim = await self._rows.claim()
            if claim is None:
                self._more = False
                return
            handed = self._taken(claim)
            await self._hand(queue, handed)
            room -= 1

    async def _hand(self, queue: SharedQueue, handed: _Handed) -> None:
        handed.seen = self._now()
        order = structs.replace(handed.order, results=handed.results)
        await queue.hand(handed.key, msgspec.json.encode(order).decode(), {})

    def _taken(self, claim: JobRow) -> _Handed:
        handed = self._handed[claim.id] = _Handed(claim, self._now())
        self._live.put(told(claim))
        return handed

    async def _sweep(self, now: float) -> None:
        """Take over what other gateways have left, and show that ours are looked after."""
        if now - self._swept < SWEEP:
            return
        self._swept = now
        self._rows.beat([one.claim for one in self._handed.values()])
        for claim in await self._rows.adopt():
            if claim.id not in self._handed:
                self._taken(claim)
        self._more = True
        if now - self._evicted > EVICT:
            self._evicted = now
            await self._files.delete(await self._rows.evict())

    async def _heed_rows(self) -> None:
        """See what others have said of what is ours: it is to be stopped, or is ours no more."""
        rows = {row.id: row for row in await self._rows.several(list(self._handed))}
        for id, handed in list(self._handed.items()):
            row = rows.get(id)
            claim = handed.claim
            if row is None or (row.state, row.runner, row.attempt) != ("running", claim.runner, claim.attempt):
                self._drop(handed, row)
            elif row.stopping:
                handed.stopping = True

    # What a job's worker says

    async def _mirror(self, queue: SharedQueue, handed: _Handed, job: Held | None) -> None:
        from saq.job import Status

        if handed.claim.id not in self._handed:
            return
        if job is None:
            await self._missing(queue, handed)
            return
        now = self._now()
        if job.touched != handed.touched:
            handed.touched, handed.seen = job.touched, now
        outcome = await self._heard(queue, handed, job)
        if handed.claim.id not in self._handed:
            return
        if outcome is not None and outcome.died:
            await self._again(queue, handed, None)
        elif outcome is not None:
            await self._end(handed, ending_of(outcome))
        elif handed.stopping:
            await self._stop(queue, handed, job)
        elif job.status == Status.QUEUED:
            handed.begun = False
            late = now - handed.seen > TAKEN
            if late or not self._slots:
                taken = await queue.take_back(handed.key)
                if taken or late:
                    await self._again(queue, handed, job, begun=not taken)
        elif job.status in {Status.ACTIVE, Status.ABORTING} and now - handed.seen <= DEAD:
            handed.begun = True
        else:  # its worker is dead, or has ended without a word
            await self._again(queue, handed, job)

    async def _missing(self, queue: SharedQueue, handed: _Handed) -> None:
        """The server has lost it. Its worker may still be there, and tell of it again."""
        if handed.stopping:
            await self._end(handed, Ending(state="cancelled"))
        elif self._now() - handed.seen > (GONE if handed.begun else DEAD):
            if handed.begun:
                await self._again(queue, handed, None)
            else:
                await self._hand(queue, handed)

    async def _heard(self, queue: SharedQueue, handed: _Handed, job: Held) -> Outcome | None:
        """Note how far it is; how it ended, if it has."""
        from gateway.jobs.over_redis.queue import Said

        try:
            said = msgspec.convert(job.meta, Said)
        except msgspec.ValidationError:  # a worker of another version
            return None
        for result in said.results[len(handed.results) - handed.first :]:
            if not await self._keep(handed, result, said.worker):
                return None
        seen = self._live.get(handed.claim.id)
        if seen is None or not said.total:
            return said.outcome
        place = structs.replace(
            seen,
            done=said.index * said.total + said.done,
            total=said.total * handed.order.request.n,
            index=said.index,
            note="",
        )
        if said.preview != handed.previews and (data := await queue.preview(handed.key)) is not None:
            handed.previews = said.preview
            place = structs.replace(place, preview=Blob(data, said.preview_type))
        if place != seen:
            self._live.put(place)
            if self._now() - handed.noted > NOTE:
                handed.noted = self._now()
                self._rows.progress(handed.claim, done=place.done, total=place.total)
        return said.outcome

    async def _keep(self, handed: _Handed, result: Result, worker: str) -> bool:
        """Note a picture. False: it is nowhere to be found, or the job is no longer ours."""
        if worker not in self._good:
            try:
                await self._files.get(result.name)
            except NotFound:
                logger.warning("worker %s: %s", worker, ELSEWHERE)
                await self._end(handed, Ending(state="failed", error=ELSEWHERE, code="internal_error", status=500))
                return False
            self._good.add(worker)
        results = (*handed.results, result)
        seen = self._live.get(handed.claim.id) or told(handed.claim)
        kept = await self._rows.picture(
            handed.claim,
            results=msgspec.json.encode(results),
            done=seen.done,
            size=result.size,
            file=FileRow(result.name, result.digest),
        )
        if not kept:
            self._drop(handed, await self._rows.find(handed.claim.id))
            return False
        handed.results = results
        self._live.put(structs.replace(seen, results=results))
        return True

    async def _stop(self, queue: SharedQueue, handed: _Handed, job: Held) -> None:
        """Have its worker stop; it is over when that has, or is dead."""
        from saq.job import ACTIVE_STATUSES, Status

        if job.status in ACTIVE_STATUSES:
            handed.seen = self._now()
            await queue.give_up(job, "cancelled")
            self._news.set()
        elif job.status != Status.ABORTING or self._now() - handed.seen > DEAD:
            await self._end(handed, Ending(state="cancelled"))

    async def _again(self, queue: SharedQueue, handed: _Handed, job: Held | None, *, begun: bool = True) -> None:
        """Its worker is dead, or there was none: another one may have it."""
        if job is not None and begun:
            await queue.give_up(job, "another worker has it")
        await self._rows.again(handed.claim, tries=self._settings.tries, begun=begun)
        self._drop(handed, await self._rows.find(handed.claim.id))
        self._more = True
        self._news.set()

    async def _end(self, handed: _Handed, ending: Ending) -> None:
        """Write how it ended, once."""
        last = self._live.get(handed.claim.id) or told(handed.claim)
        done = last.total if ending.state == "done" else last.done
        gone = await self._rows.settle(handed.claim, ending, done=done)
        self._drop(handed, await self._rows.find(handed.claim.id))
        self._more = True
        with contextlib.suppress(GatewayError):
            await self._files.delete(gone or [])

    def _drop(self, handed: _Handed, row: JobRow | None) -> None:
        """It is no longer in our hands, and this is its row."""
        del self._handed[handed.claim.id]
        self._past[handed.key] = self._now()
        if row is None:
            self._live.forget(handed.claim.id)
        else:
            self._live.drop(told(row))

    async def _clear(self, queue: SharedQueue) -> None:
        """Have workers stop what is over here, and let the server forget it when they have."""
        from saq.job import TERMINAL_STATUSES, Status

        keys = list(self._past)
        for key, job in zip(keys, await queue.look(keys), strict=True):
            late = self._now() - self._past[key] > PAST
            if job is None:
                if late:
                    del self._past[key]
            elif job.status in TERMINAL_STATUSES or (late and job.status == Status.ABORTING):
                await queue.forget(key)
                del self._past[key]
            elif job.status != Status.ABORTING and not _over(job):
                await queue.give_up(job, "nobody waits for it")

    # Without a server

    async def _without(self, error: Exception) -> None:
        """Say so, and do what can be done: what nobody wants any more is over."""
        if self.reachable:
            self.reachable = False
            logger.error("the queue's server cannot be reached (%s)", type(error).__name__)
        with contextlib.suppress(StorageFailed):
            self._rows.beat([one.claim for one in self._handed.values()])
            await self._heed_rows()
            for handed in list(self._handed.values()):
                if handed.stopping:
                    await self._end(handed, Ending(state="cancelled"))
        for handed in self._handed.values():
            seen = self._live.get(handed.claim.id)
            if seen is not None and seen.note != UNREACHABLE:
                self._live.put(structs.replace(seen, note=UNREACHABLE))

    def _back(self, now: float) -> None:
        logger.warning("the queue's server is back")
        self.reachable = True
        self._more = True
        for handed in self._handed.values():
            handed.seen = now
            seen = self._live.get(handed.claim.id)
            if seen is not None and seen.note:
                self._live.put(structs.replace(seen, note=""))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _over(job: Held) -> bool:
    """Whether its worker has told how it ended, and has one last word to say."""
    return bool(job.meta.get("outcome"))
