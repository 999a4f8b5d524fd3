"""Jobs: watched, cancelled, found again after a restart, in fair turns, within bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from canonical.errors import BackendUnavailable, Busy, InvalidRequest, NotFound, StorageFailed, WorkerDied
from canonical.media import Blob
from canonical.painting import Paint
from gateway.jobs import Job
from gateway.jobs.files import new_name
from gateway.jobs.jobs import JobNotFound
from gateway.store.line import Line
from tests.easels import Easel, pictures, studio
from tests.stored import ANN, BEN, Place, file, place, postgres

__all__ = ("file", "place", "postgres")

PNG = Blob(b"\x89PNG\r\n\x1a\n one", "image/png")
OTHER = Blob(b"\x89PNG\r\n\x1a\n another", "image/png")


def run(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await story

    asyncio.run(bounded())


def test_a_job_is_made_and_its_pictures_are_kept(place: Place) -> None:
    async def story() -> None:
        async with studio(place) as one:
            job = await one.submit("a", n=2, seed=7)
            assert (job.state, job.total, job.position) == ("queued", 8, 0)
            seen = [job async for job in one.jobs.watch(job.id, owner=ANN)]
            done = seen[-1]
            assert (done.state, done.done, done.percent) == ("done", 8, 100)
            assert [each.made.seed for each in done.results] == [7, 8]
            assert [each.done for each in seen] == sorted(each.done for each in seen)
            found = await one.jobs.get(job.id, owner=ANN)
            assert (found.state, found.results) == ("done", done.results)
            for result in done.results:
                blob = await one.jobs.picture(result.name, owner=ANN)
                assert (len(blob.data), blob.media_type) == (result.size, "image/png")
                assert await one.jobs.picture(result.name, owner=None) == blob
                assert (await one.jobs.known(result.digest, owner=ANN)).data == blob.data
            assert pictures(place) == sorted(result.name for result in done.results)
            await one.jobs.remove(job.id, owner=ANN)
            assert pictures(place) == []
            for name in (done.results[0].name, "../dragoman.db", "a.png", ""):
                with pytest.raises(NotFound):
                    await one.jobs.picture(name, owner=None)

    run(story())


def test_a_job_is_its_owners_alone(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one:
            job = await one.ended(await one.submit("a"))
            for refused in (
                one.jobs.get(job.id, owner=BEN),
                one.jobs.cancel(job.id, owner=BEN),
                one.jobs.remove(job.id, owner=BEN),
                one.jobs.watch(job.id, owner=BEN).__anext__(),
                one.jobs.list(owner=BEN, after=job.id),
            ):
                with pytest.raises(JobNotFound):
                    await refused
            with pytest.raises(NotFound):
                await one.jobs.picture(job.results[0].name, owner=BEN)
            with pytest.raises(NotFound):
                await one.jobs.known(job.results[0].digest, owner=BEN)
            assert await one.jobs.list(owner=BEN) == []

    run(story())


def test_a_job_that_runs_is_its_owners_alone(file: Place) -> None:
    """What runs in this process is told from memory, and to no other key either."""

    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            job = await one.submit("a")
            await easel.until("a")
            for refused in (
                one.jobs.get(job.id, owner=BEN),
                one.jobs.cancel(job.id, owner=BEN),
                one.jobs.remove(job.id, owner=BEN),
                one.jobs.watch(job.id, owner=BEN).__anext__(),
            ):
                with pytest.raises(JobNotFound):
                    await refused
            assert (await one.jobs.get(job.id, owner=ANN)).state == "running"
            easel.let_all()

    run(story())


@pytest.mark.parametrize("id", ["", "\0", "\ud800", "x" * 100_000, "' OR 1=1 --", "../../dragoman.db"])
def test_ids_that_nobody_has(place: Place, id: str) -> None:
    async def story() -> None:
        async with studio(place, running=0) as one:
            await one.submit("a")
            for refused in (
                one.jobs.get(id, owner=ANN),
                one.jobs.cancel(id, owner=ANN),
                one.jobs.remove(id, owner=ANN),
                one.jobs.picture(id, owner=ANN),
                one.jobs.known(id, owner=ANN),
            ):
                with pytest.raises(NotFound) as said:
                    await refused
                assert len(said.value.message) < 500

    run(story())


def test_words_that_are_no_text_are_refused(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one:
            with pytest.raises(InvalidRequest):
                await one.submit("\ud800")
            job = await one.ended(await one.submit("nul \0 and 'quotes' \\u0041", owner="\0ann"))
            assert (job.state, job.request.prompt) == ("done", "nul \0 and 'quotes' \\u0041")

    run(story())


def test_jobs_are_listed_newest_first(file: Place) -> None:
    async def story() -> None:
        async with studio(file, running=0) as one:
            made = [(await one.submit(prompt)).id for prompt in "abc"]
            await one.jobs.cancel(made[1], owner=ANN)
            listed = await one.jobs.list(owner=ANN)
            assert [(job.id, job.position) for job in listed] == [(made[2], 1), (made[1], 0), (made[0], 0)]
            assert [job.id for job in await one.jobs.list(owner=ANN, states=("queued",))] == [made[2], made[0]]
            assert [job.id for job in await one.jobs.list(owner=ANN, after=made[2], limit=1)] == [made[1]]

    run(story())


def test_a_running_job_is_cancelled_within_a_step(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            job = await one.submit("a", steps=50)
            easel.let(3)
            await easel.until("a", 3)
            over = await one.jobs.cancel(job.id, owner=ANN)
            assert (over.state, over.done) == ("cancelled", 3)
            assert easel.now == 0
            easel.let_all()
            assert await one.jobs.cancel(job.id, owner=ANN) == await one.jobs.get(job.id, owner=ANN)
            assert (await one.ended(await one.submit("b"))).state == "done"
            assert [step for step in easel.steps if step[0] == "a"] == [("a", 0, 1), ("a", 0, 2), ("a", 0, 3)]

    run(story())


def test_within_one_process_nobody_waits_for_a_look(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("store_queue.POLL", "loop.LOOK", "loop.SWEEP", "jobs.LOOK"):
        monkeypatch.setattr(f"gateway.jobs.{name}", 1000)

    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            for prompt in "abc":
                job = await one.submit(prompt)
                easel.let(4)
                assert (await one.ended(job)).state == "done"
            job = await one.submit("d")
            await easel.until("d")
            assert (await one.jobs.cancel(job.id, owner=ANN)).state == "cancelled"

    run(story())


def test_a_waiting_job_that_is_cancelled_never_begins(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            first, second = await one.submit("a"), await one.submit("b")
            await easel.until("a")
            assert (await one.jobs.cancel(second.id, owner=ANN)).state == "cancelled"
            easel.let_all()
            assert (await one.ended(first)).state == "done"
            assert [request.prompt for request in easel.requests] == ["a"]

    run(story())


def test_what_fails_is_told_and_not_tried_again(file: Place) -> None:
    async def story() -> None:
        easel = Easel(free=True)
        easel.fails = {"bad": [InvalidRequest("no such thing", param="prompt")], "worse": [RuntimeError("secret")]}
        async with studio(file, easel) as one:
            bad = await one.ended(await one.submit("bad"))
            assert (bad.state, bad.error, bad.code, bad.status) == ("failed", "no such thing", "invalid_value", 400)
            worse = await one.ended(await one.submit("worse"))
            assert (worse.state, worse.code, worse.status) == ("failed", "internal_error", 500)
            assert "secret" not in worse.error
            assert len(easel.requests) == 2

    run(story())


def test_what_died_is_begun_again_and_what_is_busy_is_waited_for(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.jobs.work.PAUSE", 0.001)
    monkeypatch.setattr("gateway.jobs.work.LONGEST_PAUSE", 0.001)
    died = WorkerDied("the worker of the model 'm' was killed")

    async def story() -> None:
        easel = Easel(free=True)
        later = BackendUnavailable("it keeps dying", status=503, retry_after=60)
        easel.fails = {"twice": [died, later, Busy("no slot came free"), died], "always": [died] * 3}
        async with studio(file, easel) as one:
            twice = await one.ended(await one.submit("twice"))
            assert (twice.state, len(easel.requests)) == ("done", 5)
            always = await one.ended(await one.submit("always"))
            assert (always.state, always.code, len(easel.requests)) == ("failed", "worker_died", 8)
            away = BackendUnavailable("nobody is there")
            easel.fails = {"away": [away]}
            assert (await one.ended(await one.submit("away"))).status == 502

    run(story())


def test_a_job_may_take_only_so_long(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel, time=0.05) as one:
            job = await one.ended(await one.submit("a"))
            assert (job.state, job.code, job.status) == ("failed", "job_time", 504)
            assert easel.now == 0

    run(story())


# The end of a process


def test_a_job_whose_process_was_killed_is_begun_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.jobs.loop.SWEEP", 0.05)  # a PostgreSQL that has just started thinks nobody dead

    async def story() -> None:
        async with studio(place) as whole:
            wanted = await whole.ended(await whole.submit("a", seed=3, n=3))
        easel = Easel()
        async with studio(place, easel) as one:
            job = await one.submit("a", seed=3, n=3)
            easel.let(4 + 2)
            await easel.until("a", 2, 1)
            await one.die()
        easel = Easel(free=True)
        async with studio(place, easel) as two:
            two.jobs.begin()
            done = await two.ended(job)
            assert done.state == "done"
            assert [(request.seed, request.n) for request in easel.requests] == [(4, 2)], (
                "what is there is not made again"
            )
            assert [each.made.seed for each in done.results] == [3, 4, 5]
            assert [each.digest for each in done.results] == [each.digest for each in wanted.results]
            assert (await two.store.jobs.several([job.id]))[0].attempt == 2

    run(story())


def test_a_job_goes_back_at_once_where_its_process_ends(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one, studio(file) as two:
            job = await one.submit("a", steps=9)
            easel.let(1)
            await easel.until("a", 1)
            await one.close()
            row = (await two.store.jobs.several([job.id]))[0]
            assert (row.state, row.attempt, row.runner) == ("queued", 0, "")
            two.jobs.begin()
            assert (await two.ended(job)).state == "done"

    run(story())


def test_what_comes_at_the_very_end_waits_for_the_next_start(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one, studio(file) as two:
            await one.ended(await one.submit("a"))
            await one.jobs.close()
            late = await one.submit("b")
            assert getattr(one.jobs._loop, "_task", None) is None, "nothing takes it here any more"
            assert [row.state for row in await two.store.jobs.several([late.id])] == ["queued"]
            two.jobs.begin()
            assert (await two.ended(late)).state == "done"
            assert len(two.easel.requests) == 1

    run(story())


def test_a_job_that_kills_its_worker_is_not_begun_for_ever(file: Place) -> None:
    async def story() -> None:
        job = None
        for _ in range(3):
            easel = Easel()
            async with studio(file, easel) as one:
                one.jobs.begin()
                job = job or await one.submit("a")
                await easel.until("a")
                await one.die()
        async with studio(file) as last:
            last.jobs.begin()
            assert job is not None
            over = await last.ended(job)
            assert (over.state, over.code, over.status) == ("failed", "worker_died", 500)
            assert "3 times" in over.error
            assert last.easel.requests == []

    run(story())


def test_a_request_that_is_cut_off_leaves_no_job_without_its_image(
    file: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with studio(file, running=0) as one:
            add = one.store.jobs.add
            asked = asyncio.Event()

            async def slow(*rest: Any, **more: Any) -> str:
                asked.set()
                return await add(*rest, **more)

            monkeypatch.setattr(one.store.jobs, "add", slow)
            submitting = asyncio.ensure_future(one.submit("a", image=PNG))
            await asked.wait()
            submitting.cancel()
            await asyncio.gather(submitting, return_exceptions=True)
            (job,) = await one.jobs.list(owner=ANN)
        async with studio(file) as two:
            two.jobs.begin()
            assert (await two.ended(job)).state == "done"

    run(story())


@pytest.mark.parametrize("how", ["close", "die"])
def test_what_only_a_waiting_client_wanted_ends_with_its_gateway(file: Place, how: str) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one, studio(file) as two:
            following = one.jobs.follow(Paint(prompt="a"), owner=ANN)
            job = await anext(following)
            await easel.until("a")
            await getattr(one, how)()
            state = (await two.store.jobs.several([job.id]))[0].state
            assert state == {"close": "cancelled", "die": "running"}[how]
            two.jobs.begin()
            assert (await two.ended(job)).state == "cancelled"
            assert two.easel.requests == []
            if how == "close":
                assert [job.state async for job in following][-1] == "cancelled"

    run(story())


def test_a_client_that_leaves_cancels_what_it_waited_for(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            following = one.jobs.follow(Paint(prompt="a"), owner=ANN)
            job = await anext(following)
            await easel.until("a")
            await following.aclose()
            assert (await one.jobs.get(job.id, owner=ANN)).state == "cancelled"
            # One that leaves before it has heard anything leaves nothing behind either.
            leaving = asyncio.ensure_future(anext(one.jobs.follow(Paint(prompt="b"), owner=ANN)))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            for left in await one.jobs.list(owner=ANN):
                assert (await one.ended(left)).state == "cancelled"

    run(story())


# Several processes


def test_two_gateways_share_a_queue_and_do_nothing_twice(place: Place) -> None:
    async def story() -> None:
        easel = Easel(free=True)
        async with studio(place, easel) as one, studio(place, easel) as two:
            jobs = [await (one, two)[number % 2].submit(f"{number}") for number in range(20)]
            over = await asyncio.gather(*(two.ended(job) for job in jobs))
            assert {job.state for job in over} == {"done"}
            assert sorted(request.prompt for request in easel.requests) == sorted(f"{number}" for number in range(20))

    run(story())


def test_a_start_that_finds_nothing_to_do_opens_nothing(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one:
            assert not await one.store.jobs.unfinished()
            await one.ended(await one.submit("a"))
        async with studio(file, running=0) as two:
            assert await two.store.database.glance("SELECT 1 FROM jobs") is True
            assert not await two.store.jobs.unfinished()
            assert await two.store.database.glance("SELECT 1 FROM nothing") is None
            assert two.store.database._readers == []
            await two.submit("b")
        async with studio(file) as three:
            assert await three.store.jobs.unfinished()
            assert three.store.database._readers == []

    run(story())


def test_a_gateway_without_jobs_of_its_own_helps_others_on_its_database(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.jobs.jobs.ATTEND", 0.01)

    async def story() -> None:
        async with studio(place, running=0) as one, studio(place) as two:
            two.jobs.begin()
            assert (await one.ended(await one.submit("a"))).state == "done"
            assert len(two.easel.requests) == 1

    run(story())


def test_a_job_is_watched_and_cancelled_from_another_gateway(place: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(place, easel) as one, studio(place, running=0) as two:
            job = await two.submit("a", steps=9)
            one.jobs.begin()
            easel.let(1)
            await easel.until("a", 1)
            watching = two.jobs.watch(job.id, owner=ANN)
            while (seen := await anext(watching)).done < 1:
                pass
            assert seen.state == "running"
            assert (await two.jobs.cancel(job.id, owner=ANN)).state == "cancelled"
            assert [seen.state async for seen in watching][-1] == "cancelled"
            assert (easel.now, len(easel.steps)) == (0, 1)

    run(story())


# Bounds


def test_one_key_does_not_keep_another_waiting(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            many = [await one.submit(f"ann {number}") for number in range(50)]
            single = await one.submit("ben", owner=BEN)
            assert single.position <= 1
            urgent = await one.submit("urgent", owner=ANN, priority=1)
            assert urgent.position == 0
            easel.let_all()
            await one.ended(single)
            assert (await one.jobs.get(many[-1].id, owner=ANN)).state in {"queued", "running"}
            assert [request.prompt for request in easel.requests][:3] == ["ann 0", "urgent", "ben"]

    run(story())


def test_a_full_queue_says_when_to_come_again(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel, waiting=1) as one:
            await one.submit("a", image=PNG)
            await easel.until("a")
            await one.submit("b")
            kept = pictures(file)
            with pytest.raises(Busy) as refused:
                await one.submit("c", image=OTHER)
            assert refused.value.retry_after is not None
            assert refused.value.retry_after >= 1
            assert pictures(file) == kept
            queue = await one.jobs.queue()
            assert (queue.waiting, queue.running) == (1, 1)
            # Another key's first is let in all the same, and its second is not.
            await one.submit("d", owner=BEN)
            with pytest.raises(Busy):
                await one.submit("e", owner=BEN)
            easel.let_all()

    run(story())


def test_many_who_come_to_a_full_queue_are_told_by_one_look_at_it(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel, waiting=1) as one:
            await one.submit("a")
            await easel.until("a")
            await one.submit("b")
            looks, look = [0], one.jobs._rows.line

            async def counted() -> Line:
                looks[0] += 1
                return await look()

            one.jobs._rows.line = counted  # type: ignore[method-assign]
            refused = await asyncio.gather(*(one.submit("c") for _ in range(200)), return_exceptions=True)
            assert {type(error) for error in refused} == {Busy}
            assert looks[0] == 1
            easel.let_all()

    run(story())


def test_what_is_before_a_job_is_told(file: Place) -> None:
    async def story() -> None:
        easel = Easel(free=True)
        async with studio(file, easel) as one:
            await one.ended(await one.submit("known"))
            easel.free = False
            await one.submit("a")
            await easel.until("a")
            b, c = await one.submit("b"), await one.submit("c", steps=400)
            assert (b.position, c.position) == (0, 1)
            assert b.estimate is not None
            assert c.estimate is not None
            assert 0 < b.estimate < c.estimate

    run(story())


# Files


def test_images_that_jobs_begin_with_are_kept_once_and_as_long_as_a_job_needs_them(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            jobs = [await one.submit("a", image=PNG, mask=OTHER), await one.submit("b", image=PNG)]
            theirs = await one.submit("c", owner=BEN, image=PNG)
            assert len(pictures(file)) == 3
            await easel.until("a")
            await one.die()
        easel = Easel(free=True)
        async with studio(file, easel) as two:
            two.jobs.begin()
            for job in (*jobs, theirs):
                assert (await two.ended(job)).state == "done"
            a, b = (next(one for one in easel.requests if one.prompt == prompt) for prompt in "ab")
            assert (a.image, a.mask, b.image, b.mask) == (PNG, OTHER, PNG, None)
            over = await two.jobs.get(jobs[0].id, owner=ANN)
            assert over.request.image is over.results[0].made.image is None
            await two.jobs.remove(jobs[0].id, owner=ANN)
            assert sum(name.endswith(".in") for name in pictures(file)) == 2
            await two.jobs.remove(jobs[1].id, owner=ANN)
            assert sum(name.endswith(".in") for name in pictures(file)) == 1

    run(story())


def test_a_full_disk_fails_a_job_openly(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with studio(file) as one:

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            monkeypatch.setattr(os, "fsync", full)
            job = await one.ended(await one.submit("a"))
            assert (job.state, job.code, job.status) == ("failed", "insufficient_storage", 507)
            assert str(file.folder) not in job.error
            with pytest.raises(StorageFailed):
                await one.submit("b", image=PNG)
            assert pictures(file) == []
            monkeypatch.undo()
            assert (await one.ended(await one.submit("c"))).state == "done"

    run(story())


def test_files_of_nobody_are_cleared_away_and_others_are_not(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one:
            job = await one.ended(await one.submit("a"))
        folder = file.folder / "pictures"
        theirs = ["holiday.png", f"{new_name()}.bak", "notes.txt"]
        orphans = [new_name(), new_name(input=True), f"{new_name()[:32]}.part"]
        fresh = new_name()
        for name in (*theirs, *orphans, fresh):
            (folder / name).write_bytes(b"x")
        old = time.time() - 2 * 3600
        for name in (*theirs, *orphans, job.results[0].name):
            os.utime(folder / name, (old, old))
        async with studio(file) as two:
            await two.jobs._clear()
            assert pictures(file) == sorted([*theirs, fresh, job.results[0].name])

    run(story())


# Watching


def test_a_thousand_watchers_see_the_end(file: Place) -> None:
    async def story() -> None:
        easel = Easel()
        async with studio(file, easel) as one:
            job = await one.submit("a", steps=20)
            watching = [asyncio.ensure_future(one.ended(job)) for _ in range(1000)]
            await easel.until("a")
            easel.let_all()
            over: list[Job] = await asyncio.gather(*watching)
            assert all(each is over[0] or each == over[0] for each in over)
            assert over[0].state == "done"

    run(story())


def test_previews_are_seen_and_not_kept(file: Place) -> None:
    async def story() -> None:
        async with studio(file) as one:
            job = await one.submit("a", previews=2, steps=9)
            seen = [job async for job in one.jobs.watch(job.id, owner=ANN)]
            assert any(each.preview is not None for each in seen)
            assert (await one.jobs.get(job.id, owner=ANN)).preview is None

    run(story())


def test_a_database_that_fails_at_the_end_is_tried_again(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr("gateway.jobs.store_queue.AGAIN", 0.001)
        async with studio(file) as one:
            settle, left = one.store.jobs.settle, 3

            async def failing(*arguments: Any, **more: Any) -> Any:
                nonlocal left
                left -= 1
                if left >= 0:
                    raise StorageFailed("the disk is full")
                return await settle(*arguments, **more)

            monkeypatch.setattr(one.store.jobs, "settle", failing)
            job = await one.ended(await one.submit("a"))
            assert (job.state, left) == ("done", -1)
            assert (await one.jobs.get(job.id, owner=ANN)).state == "done"

    run(story())
