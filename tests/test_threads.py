"""Blocking work behind an async generator: batches, bounds, failures, and that it is out before one goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from backends import threads

Emit = Callable[[int], bool]


def test_items_come_in_order_and_pending_ones_together() -> None:
    gate, emitted = threading.Event(), threading.Event()

    def work(emit: Emit) -> None:
        emit(0)
        gate.wait()
        for item in range(1, 101):
            emit(item)
        emitted.set()

    async def main() -> list[list[int]]:
        batches = []
        async for batch in threads.stream(work):
            batches.append(batch)
            if batch == [0]:
                gate.set()
                emitted.wait()  # the loop stands still meanwhile, so all of it piles up
        return batches

    batches = asyncio.run(main())
    assert [item for batch in batches for item in batch] == list(range(101))
    assert batches[1] == list(range(1, 101))


def test_closing_stops_the_work_and_waits_until_it_is_out() -> None:
    out = threading.Event()
    emitted = 0

    def work(emit: Emit) -> None:
        nonlocal emitted
        while not emit(emitted):
            emitted += 1
        out.set()

    async def main() -> None:
        stream = threads.stream(work, lag=4)
        async for _ in stream:
            break
        await stream.aclose()
        assert out.is_set()

    asyncio.run(main())


def test_a_slow_consumer_holds_the_work_up() -> None:
    full = threading.Event()
    emitted = 0

    def work(emit: Emit) -> None:
        nonlocal emitted
        for item in range(50):
            if item == 8:
                full.set()
            emit(item)
            emitted += 1

    async def main() -> list[int]:
        found: list[int] = []
        async for batch in threads.stream(work, lag=8):
            assert len(batch) <= 8
            found += batch
            assert emitted <= len(found) + 8
        return found

    assert asyncio.run(main()) == list(range(50))


def test_a_consumer_that_leaves_frees_blocked_work() -> None:
    blocked = threading.Event()
    out = threading.Event()

    def work(emit: Emit) -> None:
        emit(0)
        blocked.wait()
        while not emit(1):
            pass
        out.set()

    async def main() -> None:
        stream = threads.stream(work, lag=2)
        await anext(stream)
        blocked.set()
        await stream.aclose()

    asyncio.run(main())
    assert out.is_set()


def test_what_the_work_raises_comes_after_what_it_gave() -> None:
    def work(emit: Emit) -> None:
        emit(1)
        raise KeyError("lost")

    async def main() -> None:
        async for batch in threads.stream(work):
            found.extend(batch)

    found: list[int] = []
    with pytest.raises(KeyError, match="lost"):
        asyncio.run(main())
    assert found == [1]


def test_cancelling_waits_until_the_work_is_out() -> None:
    started, out = threading.Event(), threading.Event()

    def work(emit: Emit) -> None:
        started.set()
        while not emit(0):
            pass
        out.set()

    async def consume() -> None:
        async for _ in threads.stream(work):
            pass

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.to_thread(started.wait)
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert out.is_set()

    asyncio.run(main())


def test_a_call_gives_its_result_or_its_error() -> None:
    assert asyncio.run(threads.call(lambda: 7)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(threads.call(lambda: 1 // 0))


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts how often threads wake it."""

    woken = 0

    def call_soon_threadsafe(self, *arguments, **named):
        self.woken += 1
        return super().call_soon_threadsafe(*arguments, **named)


@pytest.mark.parametrize("crowd", [2, threads.CROWD, 16])
def test_streams_of_one_engine_wake_the_loop_together_and_lose_nothing(crowd: int) -> None:
    gate, ended = threading.Event(), threading.Event()
    emitted = threading.Barrier(crowd + 1)

    def work(emit: Emit) -> None:
        gate.wait()
        for item in range(100):
            emit(item)
        emitted.wait()
        ended.wait()

    async def main() -> None:
        bell = threads.Bell()
        streams = [threads.stream(work, bell=bell) for _ in range(crowd)]
        firsts = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        assert bell.streams == crowd
        gate.set()
        emitted.wait()  # the loop stands still until every thread has said everything
        assert await asyncio.gather(*firsts) == [list(range(100))] * crowd
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Counting)
        assert loop.woken == 1
        ended.set()
        for stream in streams:
            await stream.aclose()
        assert bell.streams == 0

    with asyncio.Runner(loop_factory=Counting) as runner:
        runner.run(main())
