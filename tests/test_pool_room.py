"""The pool where not all fits: who loads, who goes, who waits and for how long; one promise a test, on a clock that jumps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backends.base import Need, Tell
from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest, OutOfMemory
from canonical.models import LoadedModel, ModelInfo
from canonical.progress import Progress
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.pool import Lease, Pool, Source
from gateway.residents import Phase, Rules, Terms
from gateway.room import Budget, Free, room_for
from tests.test_pool import in_virtual_time, now, turns


class Shelf:
    """Some models, each of one gigabyte, and what happened to them."""

    def __init__(self, **rules: Any) -> None:
        budget = rules.pop("budget", Budget(ram=2))
        self.free: Free | None = rules.pop("free", None)
        measure = None if self.free is None else self.measured
        self.pool = Pool(Rules(**{"linger": 0.0, **rules, "budget": budget}), measure=measure)
        self.story: list[str] = []
        self.failures: dict[str, list[Exception]] = {}
        self.load_time, self.abort_time = 1.0, 0.0
        self.needs: dict[str, Need] = {}
        self.sources: dict[str, Source] = {}

    def measured(self, graphics: bool) -> Free:
        assert self.free is not None
        return self.free

    def source(self, name: str, **terms: Any) -> Source:
        if name not in self.sources:

            async def load(options: LoadOptions, tell: Tell) -> Volume:
                return await self.load(name, options, tell)

            async def need(options: LoadOptions) -> Need:
                if options.context and options.context > 100_000:
                    raise InvalidRequest("no model has so much context", param="num_ctx")
                more = 1 if (options.context or 0) > 8192 else 0
                return self.needs.get(name, Need(ram=1 + more))

            self.sources[name] = Source(key=("local", name), open=load, need=need, terms=Terms(**terms))
        return self.sources[name]

    async def load(self, name: str, options: LoadOptions, tell: Tell) -> Volume:
        self.story.append(f"load {name}" + (f" {options.context}" if options.context else ""))
        tell(Progress(status="loading model", total=2, completed=1))
        try:
            await asyncio.sleep(self.load_time)
        except asyncio.CancelledError:
            await asyncio.sleep(self.abort_time)
            self.story.append(f"aborted {name}")
            raise
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        return Volume(self, name, LoadOptions(context=max(options.context or 0, 4096), threads=options.threads or 1))

    async def lease(self, name: str, options: LoadOptions = AS_CONFIGURED, **wishes: Any) -> Lease:
        return await self.pool.lease(self.source(name), options=options, **wishes)

    async def use(self, name: str, seconds: float = 0.0, options: LoadOptions = AS_CONFIGURED, **wishes: Any) -> None:
        lease = await self.lease(name, options, **wishes)
        try:
            assert not lease.model.closed
            await asyncio.sleep(seconds)
            assert not lease.model.closed
        finally:
            lease.release()

    def there(self) -> set[str]:
        return {resident.key[1] for resident in self.pool.residents()}


class Volume:
    slots = 1

    def __init__(self, shelf: Shelf, name: str, load: LoadOptions) -> None:
        self.info = ModelInfo(id=name)
        self.honours = Honours(load=load)
        self.shelf, self.closed = shelf, False

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        self.closed = True
        self.shelf.story.append(f"close {self.info.id}")
        await asyncio.sleep(0.5)


# Which go


def test_who_goes_is_decided_by_last_use_and_nobody_goes_for_nothing():
    class Some:
        def __init__(self, ram: int = 0, vram: int = 0, *, exclusive: bool = False) -> None:
            self.need, self.exclusive = Need(ram=ram, vram=vram), exclusive

    a, b, c = Some(2), Some(2, 4), Some(3)
    budget = Budget(ram=8, vram=4)
    assert room_for(Some(1), [], [a, b, c], budget) == []
    assert room_for(Some(2), [], [a, b, c], budget) == [a]
    assert room_for(Some(4), [], [a, b, c], budget) == [a, b]
    assert room_for(Some(1, 2), [], [a, b, c], budget) == [b], "the first to go would not have helped"
    assert room_for(Some(9), [], [a, b, c], budget) is None
    assert room_for(Some(6), [c], [a, b], budget) is None
    assert room_for(Some(1, exclusive=True), [], [a, b], budget) == [a, b]
    assert room_for(Some(1, exclusive=True), [a], [], budget) is None
    assert room_for(Some(1), [], [a, b, c], Budget(models=2)) == [a, b]
    alone = Some(1, exclusive=True)
    assert room_for(Some(1), [], [alone], budget) == [alone]


@in_virtual_time
async def test_the_one_used_longest_ago_goes_and_one_in_use_stays():
    shelf = Shelf()
    await shelf.use("a")
    lease = await shelf.lease("b")
    await asyncio.sleep(1)
    await shelf.use("c")
    assert shelf.story == ["load a", "load b", "close a", "load c"]
    lease.release()
    await asyncio.sleep(1)
    await shelf.use("c")
    await shelf.use("d")
    assert shelf.story[4:] == ["close b", "load d"]
    await shelf.pool.close()


@in_virtual_time
async def test_a_load_begins_only_when_what_went_for_it_has_gone():
    shelf = Shelf(budget=Budget(ram=1))
    await shelf.use("a")
    began = now()
    await shelf.use("b")
    assert now() == began + 0.5 + 1.0
    await shelf.pool.close()


@in_virtual_time
async def test_a_pinned_model_stays_whatever_comes_but_goes_when_told_to():
    shelf = Shelf(budget=Budget(ram=1))
    shelf.source("p", pinned=True, keep_alive=1.0)
    await shelf.use("p", keep_alive=0)
    await asyncio.sleep(1000)
    assert shelf.there() == {"p"}
    with pytest.raises(OutOfMemory, match=r"requires more system memory .* pinned models \(p\)"):
        await shelf.use("a")
    await shelf.pool.unload(("local", "p"))
    await shelf.use("a")
    await shelf.pool.close()


@in_virtual_time
async def test_an_exclusive_model_is_alone():
    shelf = Shelf(budget=Budget(ram=100))
    shelf.source("x", exclusive=True)
    await shelf.use("a")
    busy = await shelf.lease("b")
    alone = asyncio.ensure_future(shelf.use("x", 5))
    await asyncio.sleep(3)
    busy.release()
    await turns()
    await asyncio.sleep(2)
    assert shelf.there() == {"x"}
    await shelf.use("a")
    assert alone.done()
    assert shelf.there() == {"a"}
    await shelf.pool.close()


@in_virtual_time
async def test_no_more_models_than_are_allowed():
    shelf = Shelf(budget=Budget(models=1))
    await shelf.use("a")
    await shelf.use("b")
    assert shelf.there() == {"b"}
    await shelf.pool.close()


# Who waits


@in_virtual_time
async def test_what_can_never_fit_is_refused_at_once_and_closes_nothing():
    shelf = Shelf()
    shelf.needs["huge"] = Need(ram=10**10)
    await shelf.use("a")
    began = now()
    with pytest.raises(OutOfMemory, match=r"'huge' requires more system memory \(10\.0 GB\)") as refused:
        await shelf.use("huge")
    assert (now(), refused.value.retry, refused.value.status) == (began, False, 503)
    assert shelf.there() == {"a"}
    await shelf.pool.close()


@in_virtual_time
async def test_where_only_requests_hold_the_room_the_wait_is_bounded():
    shelf = Shelf(budget=Budget(ram=1), waiting_time=7.0)
    lease = await shelf.lease("a")
    began = now()
    with pytest.raises(Busy, match="no memory came free within 7 s") as busy:
        await shelf.use("b")
    assert now() == began + 7
    assert busy.value.retry_after
    lease.release()
    await shelf.use("a")
    assert shelf.story == ["load a"], "who gave up has no effect any more"
    await shelf.pool.close()


@in_virtual_time
async def test_requests_for_the_loaded_model_go_first_but_hold_others_back_for_so_long_only():
    shelf = Shelf(budget=Budget(ram=1), switch_after=10.0)
    ends: list[tuple[str, float]] = []

    async def ask(name: str) -> None:
        await shelf.use(name, 1.0)
        ends.append((name, now()))

    asked = [asyncio.ensure_future(ask("a")) for _ in range(30)]
    await asyncio.sleep(1.5)
    began = now()
    asked.append(asyncio.ensure_future(ask("b")))
    await asyncio.gather(*asked)
    order = [name for name, _ in ends]
    assert order.index("b") == 11
    waited = dict(reversed(ends))["b"] - began
    assert waited <= 10 + 1 + 0.5 + 1 + 1
    assert shelf.story == ["load a", "close a", "load b", "close b", "load a"]
    await shelf.pool.close()


@in_virtual_time
async def test_an_idle_model_is_kept_a_moment_for_its_own_client_to_go_on():
    shelf = Shelf(budget=Budget(ram=1), linger=0.2)
    await shelf.use("a")

    async def agent() -> None:
        for _ in range(5):
            await shelf.use("a", 0.5)
            await asyncio.sleep(0.1)

    going_on = asyncio.ensure_future(agent())
    await turns()
    await shelf.use("b")
    assert going_on.done()
    assert shelf.story == ["load a", "close a", "load b"]
    await shelf.pool.close()


@in_virtual_time
async def test_clients_with_pauses_shorter_than_loads_do_not_load_with_each_request():
    """Whose client came back soon after it had to go is kept for it longer, up to ``switch_after``."""
    shelf = Shelf(budget=Budget(ram=1), switch_after=10.0)
    answers = {"a": 0, "b": 0}
    longest = 0.0

    async def agent(name: str) -> None:
        nonlocal longest
        while now() < 120:
            began = now()
            await shelf.use(name, 0.5)
            longest = max(longest, now() - began)
            answers[name] += 1
            await asyncio.sleep(1.5)

    await asyncio.gather(agent("a"), agent("b"))
    loads = [line for line in shelf.story if line.startswith("load")]
    assert len(loads) <= 2 + 120 / 10 + 1
    assert min(answers.values()) > len(loads)
    assert longest <= 10 + 2 * (0.5 + 1) + 0.5, "a load and a close of each, the fair time, the answer"
    await shelf.pool.close()


@in_virtual_time
async def test_a_small_model_that_takes_nothing_from_who_waits_longer_need_not_wait():
    shelf = Shelf(budget=Budget(ram=4), switch_after=2.0)
    shelf.needs.update(a=Need(ram=2), large=Need(ram=3), medium=Need(ram=2))
    lease = await shelf.lease("a")
    large = asyncio.ensure_future(shelf.use("large", 1))
    await turns()
    small = asyncio.ensure_future(shelf.use("small"))
    await turns()
    medium = asyncio.ensure_future(shelf.use("medium"))
    await asyncio.sleep(5)
    assert small.done(), "there is room for it now, and will be beside the large one"
    assert not large.done()
    assert not medium.done(), "there is room for it now, but not beside the large one"
    lease.release()
    await asyncio.gather(large, medium)
    await shelf.pool.close()


@in_virtual_time
async def test_tenants_wait_in_turn_and_a_flood_drowns_itself():
    shelf = Shelf(waiting=4)
    first = await shelf.lease("a")
    order: list[str] = []

    async def ask(tenant: str) -> None:
        lease = await shelf.lease("a", tenant=tenant)
        order.append(tenant)
        lease.release()

    flood = [asyncio.ensure_future(ask("loud")) for _ in range(4)]
    await turns()
    quiet = [asyncio.ensure_future(ask("quiet")) for _ in range(2)]
    await turns()
    first.release()
    await asyncio.gather(*quiet)
    ends = await asyncio.gather(*flood, return_exceptions=True)
    assert [type(end) for end in ends] == [type(None), type(None), Busy, Busy]
    assert order == ["loud", "quiet", "loud", "quiet"]
    await shelf.pool.close()


# Loads


@in_virtual_time
async def test_a_load_under_way_can_be_seen_and_watched():
    shelf = Shelf()
    seen: list[Progress] = []
    asked = asyncio.ensure_future(shelf.lease("a", tell=seen.append))
    await asyncio.sleep(0.5)
    (resident,) = shelf.pool.residents()
    assert (resident.phase, resident.model, resident.progress) == (Phase.LOADING, None, seen[-1])
    assert seen[-1].share == 0.5
    (await asked).release()
    await shelf.pool.close()


@in_virtual_time
async def test_a_load_nobody_waits_for_goes_on_for_a_while_and_its_memory_counts_until_it_has_ended():
    shelf = Shelf(budget=Budget(ram=1), abandoned=5.0)
    shelf.load_time, shelf.abort_time = 100.0, 3.0
    asked = asyncio.ensure_future(shelf.lease("a"))
    await asyncio.sleep(1)
    asked.cancel()
    await asyncio.sleep(4)
    again = asyncio.ensure_future(shelf.lease("a"))  # it joins the load that its client gave up too early
    await asyncio.sleep(10)
    assert shelf.story == ["load a"]
    again.cancel()
    await asyncio.sleep(5.5)
    shelf.load_time = 1.0
    began = now()
    await shelf.use("b")
    assert shelf.story == ["load a", "aborted a", "load b"]
    assert now() == pytest.approx(began + 2.5 + 1)
    await shelf.pool.close()


@in_virtual_time
async def test_a_load_nobody_waits_for_is_stopped_at_once_where_others_want_the_room():
    shelf = Shelf(budget=Budget(ram=1))
    asked = asyncio.ensure_future(shelf.lease("a"))
    await asyncio.sleep(0.5)
    asked.cancel()
    await turns()
    await shelf.use("b")
    assert shelf.story == ["load a", "aborted a", "load b"]
    await shelf.pool.close()


@in_virtual_time
async def test_loads_that_fail_pause_and_the_pause_grows():
    shelf = Shelf()
    shelf.failures["a"] = [BackendError("broken") for _ in range(3)]
    for pause in (1, 2, 4):
        with pytest.raises(BackendError, match="broken"):
            await shelf.use("a")
        loads = len(shelf.story)
        with pytest.raises(BackendError, match="broken") as again:
            await shelf.use("a")
        assert (len(shelf.story), again.value.retry_after) == (loads, pause)
        await asyncio.sleep(pause)
    await shelf.use("a")
    assert shelf.story == ["load a"] * 4
    await shelf.pool.close()


@in_virtual_time
async def test_a_load_that_finds_too_little_memory_makes_idle_ones_go_and_is_tried_once_more():
    shelf = Shelf(budget=Budget(ram=10))
    await shelf.use("a")
    shelf.failures["b"] = [OutOfMemory("no memory after all")]
    await shelf.use("b")
    assert shelf.story == ["load a", "load b", "close a", "load b"]
    await shelf.use("a")
    shelf.failures["c"] = [OutOfMemory("no memory after all") for _ in range(2)]
    with pytest.raises(OutOfMemory):
        await shelf.use("c")
    assert shelf.there() == set()
    await shelf.pool.close()


@in_virtual_time
async def test_memory_that_others_hold_is_waited_for_a_moment_and_then_told():
    shelf = Shelf(budget=Budget(ram=10), free=Free(ram=0.5))
    began = now()
    with pytest.raises(OutOfMemory, match="is available"):
        await shelf.use("a")
    assert now() == began + 2
    waiting = asyncio.ensure_future(shelf.use("a"))
    await asyncio.sleep(1)
    shelf.free = Free(ram=5)
    await waiting
    await shelf.pool.close()


# How a model is loaded


@in_virtual_time
async def test_two_clients_with_different_contexts_load_the_model_twice_at_most():
    shelf = Shelf()
    for _ in range(5):
        await shelf.use("a", options=LoadOptions(context=2048))
        await shelf.use("a", options=LoadOptions(context=8192))
        await shelf.use("a")
        await shelf.use("a", options=LoadOptions(threads=3))
        await shelf.use("a", options=LoadOptions(gpu_layers=-1))
    assert shelf.story == ["load a 2048", "close a", "load a 8192", "close a", "load a 8192"]
    await shelf.pool.close()


@in_virtual_time
async def test_those_who_wait_for_one_load_get_one_that_does_for_all():
    shelf = Shelf()
    wishes = [LoadOptions(context=context) for context in (2048, 8192, 4096)]
    await asyncio.gather(*(shelf.use("a", options=wish) for wish in wishes))
    assert shelf.story == ["load a 8192"]
    await shelf.pool.close()


@in_virtual_time
async def test_who_wants_what_cannot_be_is_refused_alone_and_closes_nothing():
    shelf = Shelf(budget=Budget(ram=1))
    lease = await shelf.lease("a")
    with pytest.raises(InvalidRequest, match="so much context"):
        await shelf.use("a", options=LoadOptions(context=200_000))
    with pytest.raises(OutOfMemory):
        await shelf.use("a", options=LoadOptions(context=16384))
    lease.release()
    await shelf.use("a")
    assert shelf.story == ["load a"]
    await shelf.pool.close()


@in_virtual_time
async def test_a_wish_that_is_refused_or_ignored_loads_nothing_anew():
    shelf = Shelf()
    shelf.source("r", options="refuse")
    shelf.source("i", options="ignore")
    with pytest.raises(InvalidRequest, match="as configured"):
        await shelf.use("r", options=LoadOptions(context=8192))
    await shelf.use("r", options=LoadOptions(context=2048))
    await shelf.use("i", options=LoadOptions(context=8192))
    assert shelf.story == ["load r", "load i"]
    await shelf.pool.close()


@in_virtual_time
async def test_who_wants_it_loaded_differently_is_not_held_back_for_ever():
    shelf = Shelf(switch_after=5.0)
    stop = False

    async def keep_asking() -> None:
        while not stop:
            await shelf.use("a", 1.0)

    asking = [asyncio.ensure_future(keep_asking()) for _ in range(3)]
    await asyncio.sleep(3)
    began = now()
    await shelf.use("a", options=LoadOptions(threads=8))
    assert now() - began <= 5 + 1 + 0.5 + 1 + 1
    stop = True
    await asyncio.gather(*asking)
    await shelf.pool.close()


# Ends


@in_virtual_time
async def test_a_model_that_was_replaced_ends_with_its_requests_and_who_comes_gets_the_new_one():
    shelf = Shelf()
    old = await shelf.lease("a")
    waiting = asyncio.ensure_future(shelf.lease("a"))
    await turns()
    shelf.pool.retire(("local", "a"))
    new = await shelf.lease("a", keep_alive=-1) if waiting.done() else await waiting
    assert new.model is not old.model
    assert not old.model.closed
    old.release()
    await turns()
    assert old.model.closed
    assert not new.model.closed
    new.release()
    await shelf.use("a")
    assert shelf.story == ["load a", "load a", "close a"]
    await shelf.pool.close()


@in_virtual_time
async def test_whatever_ends_a_wait_leaves_nothing_behind():
    shelf = Shelf(budget=Budget(ram=1))
    lease = await shelf.lease("a")
    asked = [asyncio.ensure_future(shelf.use(name)) for name in ("a", "b", "c")]
    await turns()
    closing = asyncio.ensure_future(shelf.pool.close())
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(end, Busy) for end in ends)
    await closing
    lease.release()
    with pytest.raises(GatewayError, match="shutting down"):
        await shelf.use("a")
    assert not shelf.there()
