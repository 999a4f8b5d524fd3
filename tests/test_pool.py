"""The pool: one load, bounded fair queues, idle expiry; on a clock that jumps, so nothing here sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backends.base import Tell, tell_nobody
from canonical.errors import BackendError, Busy
from canonical.models import LoadedModel, ModelInfo
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.pool import Pool, Source
from gateway.residents import Key, Rules, Terms
from tests.virtual_time import run

KEY = ("local", "m")


class OneModel:
    """A model that knows whether it was used rightly."""

    honours = Honours()

    def __init__(self, house: House, slots: int) -> None:
        self.info = ModelInfo(id="m")
        self.slots = slots
        self._house = house
        self.closed = False

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        assert not self.closed
        await asyncio.sleep(self._house.close_time)
        self.closed = True
        self._house.open_now -= 1


class House:
    """Opens models and counts: two open at once would be two copies in memory."""

    def __init__(self, *, slots: int = 1, load_time: float = 1.0, close_time: float = 0.5) -> None:
        self.slots, self.load_time, self.close_time = slots, load_time, close_time
        self.loads = self.open_now = 0
        self.failures: list[Exception] = []

    async def open(self, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> OneModel:
        self.loads += 1
        self.open_now += 1
        assert self.open_now == 1, "the model was loaded twice at once"
        await asyncio.sleep(self.load_time)
        if self.failures:
            self.open_now -= 1
            raise self.failures.pop(0)
        return OneModel(self, self.slots)


def pool(**rules: Any) -> Pool:
    return Pool(Rules(**rules))


def source(
    key: Key, open: Callable[[LoadOptions, Tell], Awaitable[Any]], keep_alive: float = -1, **terms: Any
) -> Source:
    return Source(key=key, open=open, terms=Terms(keep_alive=keep_alive, **terms))


def in_virtual_time(test: Callable[[], object]) -> Callable[[], None]:
    def wrapped() -> None:
        run(test())

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_hundred_waiters_share_one_load():
    house, residents = House(slots=0), pool()
    leases = await asyncio.gather(*(residents.lease(source(KEY, house.open, -1)) for _ in range(100)))
    assert house.loads == 1
    assert len({id(lease.model) for lease in leases}) == 1
    for lease in leases:
        lease.release()
    await residents.close()


@in_virtual_time
async def test_a_failed_load_reaches_every_waiter_and_the_next_try_loads_again():
    house, residents = House(slots=0), pool()
    house.failures.append(BackendError("broken file"))
    waiters = [residents.lease(source(KEY, house.open, -1)) for _ in range(100)]
    answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["broken file"] * 100
    assert residents.residents() == []
    await asyncio.sleep(1)
    lease = await residents.lease(source(KEY, house.open, -1))
    assert house.loads == 2
    lease.release()
    await residents.close()


@in_virtual_time
async def test_first_come_first_served_and_slots_are_never_exceeded():
    house, residents = House(slots=3), pool()
    order: list[int] = []
    running = 0

    async def request(number: int) -> None:
        nonlocal running
        lease = await residents.lease(source(KEY, house.open, -1))
        order.append(number)
        running += 1
        assert running <= 3
        await asyncio.sleep(1 + number % 4)
        running -= 1
        lease.release()

    await asyncio.gather(*(request(number) for number in range(40)))
    assert order == list(range(40))
    await residents.close()


@in_virtual_time
async def test_who_comes_in_the_instant_of_the_loads_end_does_not_overtake():
    house, residents = House(slots=1), pool()
    order: list[str] = []

    async def request(name: str) -> None:
        lease = await residents.lease(source(KEY, house.open, -1))
        order.append(name)
        await asyncio.sleep(1)
        lease.release()

    async def open_and_call(options: LoadOptions, tell: Tell) -> OneModel:
        model = await house.open(options, tell)
        late.append(asyncio.ensure_future(request("late")))
        return model

    late: list[asyncio.Task[None]] = []
    first = asyncio.gather(*(_with_open(residents, open_and_call, name, order) for name in ("a", "b")))
    await first
    await asyncio.gather(*late)
    assert order == ["a", "b", "late"]
    await residents.close()


async def _with_open(residents: Pool, open_model, name: str, order: list[str]) -> None:
    lease = await residents.lease(source(KEY, open_model, -1))
    order.append(name)
    await asyncio.sleep(1)
    lease.release()


@in_virtual_time
async def test_a_waiter_that_leaves_during_the_load_does_not_abort_it():
    house, residents = House(), pool()
    leaver = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    stayer = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    await turns()
    leaver.cancel()
    lease = await stayer
    assert leaver.cancelled()
    assert house.loads == 1
    lease.release()
    await residents.close()


@in_virtual_time
async def test_a_load_that_everybody_left_is_kept_for_its_time_and_closed():
    house, residents = House(), pool()
    leaver = asyncio.ensure_future(residents.lease(source(KEY, house.open, 10)))
    await turns()
    leaver.cancel()
    await asyncio.sleep(5)
    assert [resident.running for resident in residents.residents()] == [0]
    await asyncio.sleep(10)
    assert residents.residents() == []
    assert house.open_now == 0


@in_virtual_time
async def test_cancelled_waiters_are_passed_over_and_free_nothing():
    house, residents = House(), pool()
    first = await residents.lease(source(KEY, house.open, -1))
    waiters = [asyncio.ensure_future(residents.lease(source(KEY, house.open, -1))) for _ in range(5)]
    await turns()
    for index in (0, 2, 4):
        waiters[index].cancel()
    first.release()  # in the same instant, before the cancelled ones have woken
    second = await waiters[1]
    await turns()
    assert not waiters[3].done()
    assert residents.residents()[0].running == 1
    second.release()
    (await waiters[3]).release()
    assert residents.residents()[0].running == 0
    assert not residents.residents()[0].waiting
    await residents.close()


@in_virtual_time
async def test_a_slot_that_comes_in_the_instant_of_leaving_is_passed_on():
    house, residents = House(), pool()
    first = await residents.lease(source(KEY, house.open, -1))
    leaver = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    stayer = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    await turns()
    first.release()  # the leaver's turn has come
    leaver.cancel()  # and it leaves before it learns so
    lease = await stayer
    assert leaver.cancelled()
    assert residents.residents()[0].running == 1
    lease.release()
    await residents.close()


@in_virtual_time
async def test_a_full_queue_refuses_at_once():
    house, residents = House(), pool(waiting=2)
    lease = await residents.lease(source(KEY, house.open, -1))
    waiters = [asyncio.ensure_future(residents.lease(source(KEY, house.open, -1))) for _ in range(2)]
    await turns()
    began = now()
    with pytest.raises(Busy, match=r"try again\.  maximum pending requests exceeded") as busy:
        await residents.lease(source(KEY, house.open, -1))
    assert now() == began
    assert busy.value.retry_after
    lease.release()
    for waiter in waiters:
        (await waiter).release()
    await residents.close()


@in_virtual_time
async def test_a_queue_that_grew_during_the_load_is_cut_to_its_limit_from_behind():
    house, residents = House(slots=1), pool(waiting=2)
    waiters = [asyncio.ensure_future(residents.lease(source(KEY, house.open, -1))) for _ in range(5)]
    for waiter in waiters[:3]:
        (await waiter).release()
    assert [type(waiter.exception()) for waiter in waiters[3:]] == [Busy, Busy]
    await residents.close()


@in_virtual_time
async def test_any_number_may_come_while_a_model_without_slots_loads():
    house, residents = House(slots=0), pool(waiting=2)
    leases = await asyncio.gather(*(residents.lease(source(KEY, house.open, -1, local=False)) for _ in range(2000)))
    for lease in leases:
        lease.release()
    await residents.close()


@in_virtual_time
async def test_the_wait_for_a_slot_is_bounded_and_the_load_does_not_count():
    house, residents = House(load_time=500), pool(waiting_time=60)
    waiters = [asyncio.ensure_future(residents.lease(source(KEY, house.open, -1))) for _ in range(2)]
    lease = await waiters[0]
    assert now() == pytest.approx(500)
    with pytest.raises(Busy, match="within 60 s"):
        await waiters[1]
    assert now() == pytest.approx(560)
    assert not residents.residents()[0].waiting
    lease.release()
    await residents.close()


@in_virtual_time
async def test_keep_alive_in_seconds_zero_and_for_ever():
    house, residents = House(close_time=0), pool()

    async def use(keep_alive: float, override: float | None = None) -> None:
        (await residents.lease(source(KEY, house.open, keep_alive), keep_alive=override)).release()

    await use(300)
    await asyncio.sleep(299)
    assert residents.residents()
    await use(300)  # the clock starts again
    await asyncio.sleep(299)
    assert residents.residents()
    await asyncio.sleep(2)
    assert not residents.residents()

    await use(0)
    await turns()
    assert not residents.residents()

    await use(-1)
    await asyncio.sleep(1e6)
    assert residents.residents()
    await use(-1, override=5)
    await asyncio.sleep(6)
    assert not residents.residents()
    assert house.open_now == 0


@in_virtual_time
async def test_a_requests_keep_alive_stays_until_another_request_gives_one_and_ends_with_the_model():
    house, residents = House(close_time=0), pool()

    async def use(override: float | None) -> None:
        (await residents.lease(source(KEY, house.open, 300), keep_alive=override)).release()

    await use(20)
    await use(None)
    assert residents.residents()[0].expiry == pytest.approx(now() + 20)
    await asyncio.sleep(21)
    assert not residents.residents()
    await use(None)
    assert residents.residents()[0].expiry == pytest.approx(now() + 300)
    await use(0)
    await turns()
    assert not residents.residents()


@in_virtual_time
async def test_a_running_request_outlives_keep_alive():
    house, residents = House(close_time=0), pool()
    lease = await residents.lease(source(KEY, house.open, 5))
    await asyncio.sleep(1000)
    assert residents.residents()[0].expiry is None
    lease.release()
    await asyncio.sleep(6)
    assert not residents.residents()


@in_virtual_time
async def test_unload_while_busy_closes_after_the_last_request():
    house, residents = House(), pool()
    lease = await residents.lease(source(KEY, house.open, -1))
    await residents.unload(KEY)
    assert residents.residents()
    lease.release()
    await turns()
    assert not residents.residents()
    await asyncio.sleep(1)
    assert house.open_now == 0
    await residents.unload(KEY)  # nothing there: nothing happens


@in_virtual_time
async def test_unload_waits_for_its_own_model_only():
    slow, quick, residents = House(close_time=100), House(close_time=1), pool()
    for key, house in ((("local", "slow"), slow), (("local", "quick"), quick)):
        (await residents.lease(source(key, house.open, -1))).release()
    background = asyncio.ensure_future(residents.unload(("local", "slow")))
    await turns()
    began = now()
    await residents.unload(("local", "quick"))
    assert now() == pytest.approx(began + 1)
    await background


@in_virtual_time
async def test_unload_during_the_load_closes_it_afterwards():
    house, residents = House(close_time=0), pool()
    waiter = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    await turns()
    await residents.unload(KEY)
    (await waiter).release()
    await turns()
    assert not residents.residents()


@in_virtual_time
async def test_a_lease_while_closing_waits_and_loads_again_with_the_models_own_keep_alive():
    house, residents = House(close_time=3), pool()
    (await residents.lease(source(KEY, house.open, 300))).release()
    unloading = asyncio.ensure_future(residents.unload(KEY))
    await turns()
    leases = await asyncio.gather(
        *(residents.lease(source(KEY, house.open, 300)) for _ in range(1)),
    )
    assert house.loads == 2
    assert unloading.done()
    leases[0].release()
    assert residents.residents()[0].expiry == pytest.approx(now() + 300)
    await residents.close()


@in_virtual_time
async def test_a_model_that_cannot_be_closed_is_forgotten_all_the_same():
    house, residents = House(), pool()
    lease = await residents.lease(source(KEY, house.open, 0))

    async def broken() -> None:
        house.open_now -= 1
        raise RuntimeError("no")

    lease.model.close = broken
    lease.release()
    await turns()
    (await residents.lease(source(KEY, house.open, -1))).release()
    assert house.loads == 2
    await residents.close()


@in_virtual_time
async def test_close_ends_loads_refuses_waiters_and_closes_models_in_use():
    house, residents = House(), pool()
    lease = await residents.lease(source(KEY, house.open, -1))
    waiter = asyncio.ensure_future(residents.lease(source(KEY, house.open, -1)))
    loading = House(load_time=1000)
    caller = asyncio.ensure_future(residents.lease(source(("local", "other"), loading.open, -1)))
    await turns()
    began = now()
    await residents.close()
    assert now() - began < 2
    with pytest.raises(Busy, match="shutting down"):
        await waiter
    with pytest.raises(Busy, match="shutting down"):
        await caller
    with pytest.raises(Busy, match="shutting down"):
        await residents.lease(source(KEY, house.open, -1))
    lease.release()
    assert house.open_now == 0
    assert residents.residents() == []
