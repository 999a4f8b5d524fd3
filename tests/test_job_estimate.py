"""How long a job takes is told by what painting took, not by what the first one waited for its model to be loaded."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from gateway.jobs.estimate import until_done, until_room
from gateway.store.job_row import Ending
from gateway.store.line import Line, Placed
from tests.stored import ANN, Clock, Place, file, place, postgres
from tests.test_store_jobs import added, claimed, opened

__all__ = ("file", "place", "postgres")

JOB = Placed(
    number=1,
    id="a",
    owner=ANN,
    state="running",
    priority=0,
    model="m",
    cost=2.0,
    started=100.0,
    done=50,
    total=100,
    turn=0,
)
NEXT = structs.replace(JOB, number=2, id="b", state="queued", started=0.0, done=0)


@pytest.mark.parametrize(
    ("costs", "seconds"), [([1.0, 100.0], [22.0, 100.0]), ([1.0] * 5, [22.0, 1.0, 30.0, 1.0, 1.0])]
)
def test_a_job_that_waited_for_its_model_does_not_make_the_next_ones_long(
    place: Place, costs: list[float], seconds: list[float]
) -> None:
    """Of past jobs the quicker ones count: the others were loading."""

    async def story() -> None:
        clock = Clock()
        store = opened(place, clock)
        rows = store.jobs
        for number, (cost, took) in enumerate(zip(costs, seconds, strict=True)):
            await added(rows, f"{number}", model="m", cost=cost)
            claim = await claimed(rows)
            clock.now += took
            await rows.settle(claim, Ending(state="done", finished=clock.now))
        await added(rows, "next", model="m", cost=10.0)
        assert until_done(await rows.line(), "next", slots=1, now=clock.now) == (0, 10.0)
        await store.close()

    asyncio.run(story())


def test_what_is_seen_of_a_job_that_runs_counts_before_what_is_remembered() -> None:
    line = Line([JOB], [NEXT], {"m": 500.0})
    assert until_done(line, "a", slots=1, now=110.0) == (0, 10.0)
    assert until_done(line, "b", slots=1, now=110.0) == (0, 30.0)
    assert until_room(line, now=110.0) == 10.0


def test_a_job_that_is_still_waiting_for_its_model_is_told_by_what_is_remembered() -> None:
    begun = structs.replace(JOB, done=1)
    assert until_done(Line([begun], [], {"m": 1.0}), "a", slots=1, now=160.0) == (0, pytest.approx(1.98))


def test_where_nothing_is_known_nothing_is_told() -> None:
    assert until_done(Line([], [NEXT], {}), "b", slots=1, now=0.0) == (0, None)
    other = structs.replace(JOB, model="other")
    assert until_done(Line([other], [NEXT], {}), "b", slots=1, now=110.0) == (0, None)
    assert until_room(Line([structs.replace(JOB, done=0)], [NEXT], {}), now=110.0) == 10.0
