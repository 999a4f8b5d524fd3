"""Gateways that end, or die, in the middle of everything: each job ends once, and no file and no row is left without the other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable

import msgspec
import pytest

from canonical.errors import GatewayError, WorkerDied
from canonical.media import Blob
from canonical.painting import Paint, Painted, Step
from gateway.jobs import Job
from gateway.jobs.job import Result
from gateway.jobs.jobs import JobNotFound
from tests.calling import until
from tests.easels import Easel, Studio, pictures, studio
from tests.stored import ANN, BEN, Place, file, place, postgres

__all__ = ("file", "place", "postgres")

QUEUE = "gateway.jobs.store_queue"
CLIENTS, ASKS, ENDS = 6, 6, 4


def test_who_rests_finishes_what_it_has_and_takes_nothing_more(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            first, second = await one.submit("a"), await one.submit("b")
            await easel.until("a")
            stopping = asyncio.ensure_future(one.jobs._loop.stop(60))
            await until(lambda: vars(one.jobs._loop)["_queue"].resting)
            easel.let_all()
            await stopping
            rows = {row.id: row.state for row in await one.store.jobs.several([first.id, second.id])}
            assert rows == {first.id: "done", second.id: "queued"}
            assert [request.prompt for request in easel.requests] == ["a"]

    asyncio.run(story())


def test_a_job_that_another_gateway_takes_over_while_it_is_cancelled_is_not_waited_for_in_vain(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one, studio(file) as two:
            job = await one.submit("a")
            await easel.until("a")
            two.store.database.alive.show()
            file.ask(f"UPDATE jobs SET runner = '{two.store.jobs.me}', attempt = 2")
            cancelling = asyncio.ensure_future(one.jobs.cancel(job.id, owner=ANN))
            await until(lambda: not one.jobs._live.running)
            file.ask("UPDATE jobs SET state = 'cancelled'")
            async with asyncio.timeout(30):
                assert (await cancelling).state == "cancelled"

    asyncio.run(story())


class Frail(Easel):
    """Paints at once, and its process dies now and then."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(free=True)
        self._chance = chance

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        async with contextlib.aclosing(super().paint(request)) as events:
            async for event in events:
                for _ in range(self._chance.randrange(4)):
                    await asyncio.sleep(0)
                if self._chance.random() < 0.004:
                    raise WorkerDied("the worker was killed")
                yield event


class Street:
    """Gateways that share a database, of which some end while clients ask them. A request ends with its gateway, as a connection does."""

    def __init__(self, place: Place, seed: int) -> None:
        self._place = place
        self._chance = random.Random(seed)
        self._asked: dict[Studio, set[asyncio.Task[None]]] = {}
        self._open = [self._opened(), self._opened()]
        self.accepted: set[str] = set()
        self.removed: set[str] = set()

    def _opened(self) -> Studio:
        made = Studio(self._place, Frail(self._chance), running=2, waiting=1000, tries=20)
        self._asked[made] = set()
        made.jobs.begin()
        return made

    async def asked(self, what: Awaitable[None], of: Studio) -> None:
        """One request; it is cut off where its gateway ends."""
        task = asyncio.ensure_future(what)
        self._asked.setdefault(of, set()).add(task)
        task.add_done_callback(lambda task: self._asked.get(of, set()).discard(task))
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, GatewayError):
            raise error

    async def client(self) -> None:
        for _ in range(ASKS):
            one = self._chance.choice(self._open)
            owner = self._chance.choice([ANN, BEN])
            await self.asked(self._chance.choice([self._follow, self._submit])(one, owner), one)

    def _request(self) -> Paint:
        image = Blob(b"\x89PNG\r\n\x1a\n %d" % self._chance.randrange(3), "image/png")
        return Paint(prompt="x", n=self._chance.randint(1, 3), image=self._chance.choice([image, None]))

    async def _follow(self, one: Studio, owner: str) -> None:
        left = self._chance.randrange(20)
        async with contextlib.aclosing(one.jobs.follow(self._request(), owner=owner)) as jobs:
            async for _ in jobs:
                left -= 1
                if left < 0:
                    return

    async def _submit(self, one: Studio, owner: str) -> None:
        job = await one.jobs.submit(self._request(), owner=owner)
        self.accepted.add(job.id)
        other = self._chance.choice(self._open)
        then = self._chance.choice([self._watch, self._cancel, self._remove, None])
        if then is not None:
            await self.asked(then(other, job), other)

    async def _watch(self, one: Studio, job: Job) -> None:
        assert [seen async for seen in one.jobs.watch(job.id, owner=job.owner)][-1].over

    async def _cancel(self, one: Studio, job: Job) -> None:
        assert (await one.jobs.cancel(job.id, owner=job.owner)).over

    async def _remove(self, one: Studio, job: Job) -> None:
        self.removed.add(job.id)
        await one.jobs.remove(job.id, owner=job.owner)
        with pytest.raises(JobNotFound):
            await one.jobs.get(job.id, owner=job.owner)

    async def ends(self) -> None:
        """One after the other ends, drained or killed, and another begins."""
        for _ in range(ENDS):
            for _ in range(self._chance.randrange(2000)):
                await asyncio.sleep(0)
            await self.end(self._open.pop(self._chance.randrange(2)))
            self._open.append(self._opened())

    async def end(self, one: Studio) -> None:
        asked = self._asked.pop(one)
        if self._chance.random() < 0.5:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await one.close()
        else:
            await one.die()
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        await one.store.close()  # what was asked last may have opened it again

    async def close(self) -> None:
        for one in list(self._asked):
            await self.end(one)


@pytest.mark.parametrize("seed", range(3))
def test_gateways_end_and_die_in_the_middle_of_everything(
    place: Place, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name in (f"{QUEUE}.POLL", "gateway.jobs.loop.LOOK", "gateway.jobs.jobs.LOOK"):
        monkeypatch.setattr(name, 0.02)
    monkeypatch.setattr("gateway.jobs.loop.SWEEP", 0.1)

    async def story() -> None:
        street = Street(place, seed)
        await asyncio.gather(street.ends(), *(street.client() for _ in range(CLIENTS)))
        await street.close()
        async with studio(place, running=2) as last:
            last.jobs.begin()
            while await last.store.jobs.counts():  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())
    rows = place.ask("SELECT id, state, results, request FROM jobs")
    assert {state for _, state, _, _ in rows} <= {"done", "cancelled"}
    named = {name for (name,) in place.ask("SELECT name FROM job_files")}
    assert pictures(place) == sorted(named)
    for id, state, results, request in rows:
        made = msgspec.json.decode(bytes(results), type=tuple[Result, ...])
        assert {result.name for result in made} <= named
        if state == "done":
            assert len(made) == msgspec.json.decode(bytes(request), type=Paint).n, id
