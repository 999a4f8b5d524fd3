"""The rows of jobs: claimed once, in fair turns, ended once, and never more than may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from canonical.errors import StorageFailed
from gateway.settings import Jobs as Settings
from gateway.store import Store
from gateway.store.claims import SILENT
from gateway.store.job_row import Ending, FileRow, JobRow
from gateway.store.jobs import JobRows
from gateway.store.line import Placed, in_order
from tests.stored import ANN, BEN, Clock, Place, file, place, postgres

__all__ = ("file", "place", "postgres")

DONE = Ending(state="done")


def always(waiting: int, running: int, mine: int) -> bool:
    return True


def opened(place: Place, clock: Clock | None = None, **bounds: Any) -> Store:
    config = structs.replace(place.config(), jobs=Settings(**bounds))
    return Store(config, place.folder, clock=clock or Clock())


async def added(rows: JobRows, id: str, owner: str = ANN, *files: FileRow, size: int = 0, **more: Any) -> None:
    row = JobRow(id=id, owner=owner, request=b"{}", **more)
    assert await rows.add(row, files, room=always, size=size) == "kept"


async def claimed(rows: JobRows) -> JobRow:
    row = await rows.claim()
    assert row is not None
    return row


async def states(rows: JobRows, *ids: str) -> list[str]:
    found = {row.id: row.state for row in await rows.several(ids)}
    return [found.get(id, "") for id in ids]


def test_nobody_claims_what_another_has(place: Place) -> None:
    async def story() -> None:
        stores = [opened(place), opened(place)]
        for number in range(20):
            await added(stores[0].jobs, f"{number}")
        found = await asyncio.gather(*(store.jobs.claim() for store in stores * 15))
        ids = [row.id for row in found if row is not None]
        assert sorted(ids) == sorted(f"{number}" for number in range(20))
        for store in stores:
            await store.close()

    asyncio.run(story())


def test_keys_take_turns_and_priority_goes_first(place: Place) -> None:
    async def story() -> None:
        store = opened(place)
        rows = store.jobs
        for number in range(5):
            await added(rows, f"ann {number}")
        await added(rows, "ben 0", BEN)
        await added(rows, "ben 1", BEN)
        await added(rows, "ann urgent", priority=5)
        told = [job.id for job in (await rows.line()).waiting]
        begun = []
        for _ in range(8):
            row = await claimed(rows)
            begun.append(row.id)
            assert await rows.settle(row, DONE) == []
        assert begun == ["ann urgent", "ben 0", "ann 0", "ben 1", "ann 1", "ann 2", "ann 3", "ann 4"]
        assert told[0] == begun[0]
        # Who deletes what is over has had his turn none the less.
        await added(rows, "ben 2", BEN)
        row = await claimed(rows)
        await rows.settle(row, DONE)
        assert await rows.forget("ben 2", owner=BEN) == []
        await added(rows, "ben 3", BEN)
        await added(rows, "ann 5")
        assert (await claimed(rows)).id == "ann 5"
        await store.close()

    asyncio.run(story())


jobs_in_line = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["queued", "running"]), st.integers(0, 1), st.integers(0, 2))
)


@given(jobs_in_line)
def test_no_owner_has_two_turns_before_anothers_first(jobs: list[tuple[str, str, int, int]]) -> None:
    open = [
        Placed(
            number=number,
            id=str(number),
            owner=owner,
            state=state,
            priority=priority,
            model="",
            cost=0,
            started=0,
            done=0,
            total=0,
            turn=turn,
        )
        for number, (owner, state, priority, turn) in enumerate(jobs)
    ]
    order = in_order(open)
    assert sorted(job.number for job in order) == [job.number for job in open if job.state == "queued"]
    assert [job.priority for job in order] == sorted((job.priority for job in order), reverse=True)
    running = Counter(job.owner for job in open if job.state == "running")
    for at, job in enumerate(order):
        for later in order[at + 1 :]:
            if later.priority == job.priority:
                if later.owner == job.owner:
                    assert later.number > job.number
                else:
                    before = Counter(one.owner for one in order[:at])
                    assert running[job.owner] + before[job.owner] <= running[later.owner] + before[later.owner] + sum(
                        one.owner == later.owner for one in order[at : order.index(later)]
                    )


def test_only_who_holds_the_claim_is_heard(place: Place) -> None:
    async def story() -> None:
        store = opened(place)
        rows = store.jobs
        await added(rows, "a")
        old = await claimed(rows)
        assert await rows.give_back(old) == "queued"
        assert await rows.give_back(old) == ""
        new = structs.replace(await claimed(rows), runner=rows.me)
        stale = structs.replace(new, attempt=new.attempt + 1)
        rows.progress(stale, done=9, total=9)
        file = FileRow("x", "d")
        assert not await rows.picture(stale, results=b"[1]", done=1, size=1, file=file)
        assert await rows.settle(stale, DONE) is None
        assert await rows.picture(new, results=b"[1]", done=1, size=1, file=file)
        assert await rows.settle(new, Ending(state="failed", error="e", code="c", status=500), done=1) == []
        rows.progress(new, done=7, total=9)
        assert await rows.settle(new, DONE) is None
        row = (await rows.several(["a"]))[0]
        assert (row.state, row.done, row.results, row.error, row.attempt) == ("failed", 1, b"[1]", "e", 1)
        await store.close()

    asyncio.run(story())


def test_jobs_of_the_dead_are_begun_again_and_those_of_the_living_are_not(place: Place) -> None:
    async def story() -> None:
        clock = Clock()
        one, two = opened(place, clock), opened(place, clock)
        for id in "ab":
            await added(one.jobs, id)
        await claimed(one.jobs)
        await claimed(two.jobs)
        assert await two.jobs.sweep(tries=1) == await one.jobs.sweep(tries=1)
        assert await states(one.jobs, "a", "b") == ["running", "running"]
        clock.now += SILENT + 1  # a process that lives and does nothing any more
        two.jobs.beat(await two.jobs.several(["b"]))
        assert (await two.jobs.sweep(tries=2)).again == ["a"]
        await one.close()
        await two.close()

    asyncio.run(story())


def test_what_is_over_is_kept_within_bounds(place: Place) -> None:
    async def story() -> None:
        clock = Clock()
        store = opened(place, clock, limit=4, size=1000, keep=3600)
        rows = store.jobs

        async def over(id: str, size: int = 0, owner: str = ANN) -> list[str] | None:
            clock.now += 100
            await added(rows, id, owner)
            row = await claimed(rows)
            assert await rows.picture(row, results=b"[]", done=1, size=size, file=FileRow(f"{id}.png", id))
            return await rows.settle(row, DONE)

        await added(rows, "waits", BEN, priority=-1)
        for id in "abc":
            assert await over(id) == []
        assert await over("d") == ["a.png"]
        assert await over("e", 600) == ["b.png"]
        assert await over("f", 600, BEN) == ["c.png", "d.png", "e.png"]
        assert await states(rows, "waits", "e", "f") == ["queued", "", "done"]
        clock.now += 3601
        assert await rows.evict() == ["f.png"]
        assert await states(rows, "waits", "f") == ["queued", ""]
        await store.close()
        none = opened(place, limit=0)
        with pytest.raises(StorageFailed, match=r"jobs\.limit"):
            await none.jobs.add(JobRow(id="x", owner=ANN, request=b""), room=always)
        await none.close()

    asyncio.run(story())


def test_a_file_goes_with_the_last_job_that_has_it(file: Place) -> None:
    async def story() -> None:
        store = opened(file)
        rows = store.jobs
        shared = FileRow("s.in", "d", True)
        await added(rows, "a", ANN, shared)
        assert await rows.shareable(ANN, "d") == "s.in"
        assert await rows.shareable(BEN, "d") == ""
        row = JobRow(id="b", owner=ANN, request=b"")
        assert await rows.add(row, [shared], room=always, shared=["s.in"]) == "kept"
        for id in "ab":
            await rows.cancel(id, owner=ANN)
        assert await rows.forget("a", owner=ANN) == []
        assert await rows.forget("b", owner=BEN) is None
        assert await rows.forget("b", owner=ANN) == ["s.in"]
        assert await rows.add(row, [shared], room=always, shared=["s.in"]) == "gone"
        assert await states(rows, "b") == [""]
        await store.close()

    asyncio.run(story())


# Any order

Act = Literal["submit", "claim", "settle", "cancel", "die", "sweep", "give back"]
acts = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "claim", "claim", "settle", "cancel", "die", "sweep", "give back"]),
        st.integers(0, 1),
        st.integers(0, 5),
    ),
    max_size=25,
)


class Lives:
    """Two processes on one store, and what they have heard: each end is counted."""

    def __init__(self, folder: Path) -> None:
        self.stores = [opened(Place(folder)), opened(Place(folder))]
        self.count = 0

    async def live(self, story: list[tuple[Act, int, int]]) -> None:
        claims: list[list[JobRow]] = [[], []]
        jobs: list[str] = []
        ends: Counter[str] = Counter()
        for act, who, which in [*story, *[("claim", 0, 0), ("settle", 0, 0), ("sweep", 0, 0)] * (len(story) * 3)]:
            rows, held = self.stores[who].jobs, claims[who]
            match act:
                case "submit":
                    self.count += 1
                    jobs.append(f"{self.count}")
                    await added(rows, jobs[-1], (ANN, BEN)[which % 2])
                case "claim" if (row := await rows.claim()) is not None:
                    assert row.id not in {one.id for one in (*claims[0], *claims[1])}, "two work on one"
                    assert not ends[row.id], "it is over and was begun"
                    held.append(row)
                case "settle" if held:
                    row = held.pop(which % len(held))
                    ends[row.id] += await rows.settle(row, DONE) is not None
                case "give back" if held:
                    row = held.pop(which % len(held))
                    ends[row.id] += await rows.give_back(row) == "cancelled"
                case "cancel" if jobs:
                    id = jobs[which % len(jobs)]
                    before = await states(rows, id)
                    found = await rows.cancel(id, owner=(ANN, BEN)[0]) or await rows.cancel(id, owner=BEN)
                    assert found is not None
                    ends[id] += found.over and before[0] in {"queued", "running"}
                case "die":
                    self.stores[who].database.alive.hide()
                    held.clear()
                case "sweep":
                    for id in (await rows.sweep(tries=2)).over:
                        ends[id] += 1
        assert claims[0] == []
        for row in claims[1]:
            ends[row.id] += await self.stores[1].jobs.settle(row, DONE) is not None
        assert {id: ends[id] for id in jobs} == dict.fromkeys(jobs, 1)
        assert set(await states(self.stores[0].jobs, *jobs)) <= {"done", "failed", "cancelled"}


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Lives]]:
    with asyncio.Runner() as runner:
        made = Lives(tmp_path_factory.mktemp("lives"))
        yield runner, made
        for store in made.stores:
            runner.run(store.close())


@given(story=acts)
def test_in_any_order_each_job_ends_once(
    lives: tuple[asyncio.Runner, Lives], story: list[tuple[Act, int, int]]
) -> None:
    runner, made = lives
    runner.run(made.live(story))
