"""Work that many wait for: it runs once, tells everybody what matters, and stops when the last has left."""

from __future__ import annotations

import asyncio
import gc

import pytest

from canonical.errors import BackendError
from canonical.progress import Progress
from gateway.watched import KEPT, Watched
from tests.virtual_time import run


def step(status: str, digest: str = "", completed: int = 0) -> Progress:
    return Progress(status=status, digest=digest, total=9, completed=completed)


def test_each_watcher_gets_what_is_told_and_a_slow_one_the_latest_of_each_blob():
    async def whole() -> None:
        go = asyncio.Event()

        async def work(tell):
            tell(step("manifest"))
            await go.wait()
            for completed in range(1, 10):
                tell(step("pulling a", "a", completed))
                tell(step("pulling b", "b", completed))
            tell(step("verifying"))
            return 5

        watched = Watched(work)
        found = [await anext(stream := watched.watch())]
        go.set()
        found += [each async for each in stream]
        assert found == [step("manifest"), step("pulling a", "a", 9), step("pulling b", "b", 9), step("verifying")]
        assert await watched.wait() == 5
        assert [each async for each in watched.watch()] == found, "who comes late learns all that there is to know"

    run(whole())


def test_steps_without_end_are_kept_in_bounds():
    async def whole() -> None:
        async def work(tell):
            for number in range(10_000):
                tell(step(f"layer {number}"))

        watched = Watched(work)
        assert len([each async for each in watched.watch()]) == KEPT

    run(whole())


def test_the_last_to_leave_stops_it_and_nobody_else():
    async def whole() -> None:
        ended = asyncio.Event()

        async def work(tell):
            try:
                tell(step("x"))
                await asyncio.get_running_loop().create_future()
            finally:
                ended.set()

        watched = Watched(work)
        one, two = watched.watch(), watched.watch()
        await anext(one)
        await anext(two)
        waiting = asyncio.ensure_future(watched.wait())
        await asyncio.sleep(0)
        await one.aclose()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert not ended.is_set()
        assert not watched.stopping
        await two.aclose()
        assert ended.is_set()
        assert watched.stopping
        assert watched.done

    run(whole())


def test_a_failure_reaches_everybody_and_troubles_nobody_else():
    async def whole() -> None:
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        async def work(tell):
            await asyncio.sleep(0)
            raise BackendError("no")

        watched = Watched(work)
        for _ in range(2):
            with pytest.raises(BackendError, match="no"):
                await watched.wait()
            with pytest.raises(BackendError, match="no"):
                [each async for each in watched.watch()]
        alone = Watched(work)
        await alone.ended()
        del alone, watched
        gc.collect()
        assert told == []

    run(whole())
