"""The hybrid API's loads and unloads in memory: exclusive ones, under way beside others, and those that fail."""

from __future__ import annotations

import asyncio
from typing import Any

from canonical.errors import BackendUnavailable, OutOfMemory
from canonical.events import Finished, Started, TextDelta, Usage
from canonical.requests import Generate
from gateway.settings import Config, Limits, ModelEntry
from tests.asgi import House
from tests.calling import until
from tests.hybrid_houses import (
    ALONE,
    HI,
    Away,
    Gate,
    live,
    load,
    loaded,
    said,
    speaks,
    unload,
)
from tests.virtual_time import run

# Loads that make room


def test_h2_an_exclusive_load_leaves_nothing_else_here_or_elsewhere() -> None:
    away = Away("x", "y")

    async def story(house: House) -> None:
        await load(house, "a")
        await load(house, "b")
        assert set(await loaded(house)) == {"a", "b", "x", "y"}
        reply = await load(house, "c", exclusive=True)
        assert (reply["loaded"], reply["model"]["key"]) == (True, "c")
        assert await loaded(house) == ["c"]
        await load(house, "c", exclusive=True)
        assert (await loaded(house), homes["c"].opened) == (["c"], 1)

    homes = {"a": speaks(), "b": speaks(), "c": speaks(), "away": away}
    live(story, **homes)


def test_h2_two_exclusive_loads_leave_one() -> None:
    async def slow() -> None:
        await asyncio.sleep(3)

    async def story(house: House) -> None:
        replies = await asyncio.gather(*(load(house, key, exclusive=True) for key in "abcabc"))
        assert all(reply["loaded"] for reply in replies)
        assert await loaded(house) == ["c"]

    live(story, **{key: speaks(on_open=slow) for key in "abc"})


def test_h2_an_exclusive_load_lets_a_load_under_way_end_first() -> None:
    async def slow() -> None:
        await asyncio.sleep(3)

    async def story(house: House) -> None:
        other = asyncio.ensure_future(load(house, "a"))
        await asyncio.sleep(1)
        alone = asyncio.ensure_future(load(house, "b", exclusive=True))
        assert (await other)["loaded"]
        assert homes["b"].opened == 0
        assert (await alone)["loaded"]
        assert await loaded(house) == ["b"]

    homes = {"a": speaks(on_open=slow), "b": speaks()}
    live(story, **homes)


def test_h2_an_exclusive_load_waits_for_answers_and_cuts_none() -> None:
    gate = Gate()

    async def story(house: House) -> None:
        talk = house.call("POST", "/chat/stream", {**HI, "model_key": "a"})
        await talk.until(2)
        alone = asyncio.ensure_future(load(house, "b", exclusive=True))
        await asyncio.sleep(1)
        late = house.call("POST", "/chat", {**HI, "model_key": "a"})  # it waits for the next load of its model
        await asyncio.sleep(1)
        assert not alone.done()
        assert homes["b"].opened == 0
        assert homes["a"].opened == 1
        gate.open.set()
        assert [line["type"] for line in (await talk.end()).lines()] == ["fragment", "fragment", "done"]
        assert (await alone)["loaded"] is True
        assert said(await late.end()) == "a"
        assert homes["a"].opened == 2

    homes = {"a": speaks(story=gate.story, slots=4), "b": speaks()}
    live(story, **homes)


def test_h2_a_steady_stream_of_requests_does_not_keep_an_exclusive_load_out() -> None:
    async def story_of_a(_: Generate) -> Any:
        yield [Started("m")]
        await asyncio.sleep(1)
        yield [TextDelta("x"), Finished("stop", Usage(1, 1))]

    async def story(house: House) -> None:
        busy = True

        async def client(pause: float) -> None:
            await asyncio.sleep(pause)
            while busy:
                assert said(await house.ask("POST", "/chat", {**HI, "model_key": "a"})) == "a"

        clients = [asyncio.ensure_future(client(number / 4)) for number in range(4)]
        await asyncio.sleep(10)
        began = asyncio.get_running_loop().time()
        assert (await load(house, "b", exclusive=True))["loaded"]
        assert asyncio.get_running_loop().time() - began <= 1
        assert homes["b"].opened == 1
        busy = False
        await asyncio.gather(*clients)
        assert homes["a"].opened == 2

    homes = {"a": speaks(story=story_of_a, slots=8), "b": speaks()}
    live(story, **homes)


def test_h2_where_answers_do_not_end_the_load_says_so() -> None:
    gate = Gate()

    async def story(house: House) -> None:
        talk = house.call("POST", "/chat/stream", {**HI, "model_key": "a"})
        await talk.until(2)
        reply = await load(house, "b", exclusive=True)
        words = "Failed to load model: it is in use, and was not free within 7 s; it goes with the requests that it has"
        assert reply == {"loaded": False, "error": words}
        gate.open.set()
        await talk.end()
        await until(lambda: not house.engine.loaded())

    live(story, config=Config(limits=Limits(waiting_time=7)), a=speaks(story=gate.story), b=speaks())


def test_h2_who_leaves_a_load_leaves_nothing_behind() -> None:
    gate = Gate()

    async def story(house: House) -> None:
        talk = house.call("POST", "/chat/stream", {**HI, "model_key": "a"})
        await talk.until(2)
        alone = house.call("POST", "/models/load", {"model_key": "b", "exclusive": True})
        await asyncio.sleep(1)
        alone.leave()
        await alone.task
        gate.open.set()
        await talk.end()
        assert (await load(house, "b", exclusive=True))["loaded"]
        assert await loaded(house) == ["b"]

    live(story, a=speaks(story=gate.story), b=speaks())


def test_h2_a_model_that_is_not_there_costs_no_other_its_place() -> None:
    async def story(house: House) -> None:
        await load(house, "a")
        for key in ("nobody", "ghost"):
            reply = await load(house, key, exclusive=True)
            assert reply == {"loaded": False, "error": "Failed to load model: Model not found"}
        assert await loaded(house) == ["a"]

    async def life() -> None:
        entries = [ModelEntry(id="a", backend="a", name="m"), ModelEntry(id="ghost", backend="a", name="gone")]
        house = House(listener=ALONE, models=entries, a=speaks())
        try:
            await story(house)
        finally:
            await house.close()

    run(life())


def test_h2_a_failed_load_says_why() -> None:
    async def full() -> None:
        raise OutOfMemory("the model requires more system memory")

    async def story(house: House) -> None:
        call = await house.ask("POST", "/models/load", {"model_key": "a"})
        assert (call.status, call.json()) == (
            200,
            {"loaded": False, "error": "Failed to load model: the model requires more system memory"},
        )

    live(story, a=speaks(on_open=full))


# Unloads


def test_h2_an_unload_tells_what_went() -> None:
    away = Away("x", "y")

    async def story(house: House) -> None:
        await load(house, "a")
        await load(house, "b")
        assert await unload(house, "a") == {"success": True, "unloaded_keys": ["a"]}
        assert await unload(house, "a") == {"success": True, "unloaded_keys": []}
        reply = await unload(house, "nobody")
        assert reply == {"success": False, "unloaded_keys": [], "error": "Failed to unload model: Model not found"}
        call = await house.ask("POST", "/models/unload", {})
        assert call.json()["error"] == "Must specify model_key or unload_all=true"
        both = {"model_key": "nobody", "unload_all": True}
        call = await house.ask("POST", "/models/unload", both)
        assert call.json() == {"success": True, "unloaded_keys": ["b", "x", "y"]}
        assert await loaded(house) == []

    live(story, a=speaks(), b=speaks(), away=away)


def test_h2_an_unload_waits_for_the_answer_under_way() -> None:
    gate = Gate()

    async def story(house: House) -> None:
        talk = house.call("POST", "/chat/stream", {**HI, "model_key": "a"})
        await talk.until(2)
        going = asyncio.ensure_future(unload(house, "a"))
        await asyncio.sleep(1)
        assert not going.done()
        gate.open.set()
        assert (await going)["unloaded_keys"] == ["a"]
        assert (await talk.end()).lines()[-1]["type"] == "done"

    live(story, a=speaks(story=gate.story))


def test_h2_what_is_pinned_goes_when_it_is_told_to() -> None:
    async def life() -> None:
        entry = ModelEntry(id="a", backend="a", name="m", pinned=True)
        house = House(listener=ALONE, models=[entry], a=speaks())
        try:
            await load(house, "a")
            assert (await unload(house))["unloaded_keys"] == ["a"]
        finally:
            await house.close()

    run(life())


def test_h2_a_server_that_does_not_answer_is_told_of_and_keeps_no_other_from_going() -> None:
    error = BackendUnavailable("backend 'away' cannot be reached: connection refused")
    error.server, error.reason = "LM Studio", "connection refused"
    words = "Could not connect to LM Studio: Connection refused"

    async def story(house: House) -> None:
        call = await house.ask("GET", "/models")
        assert (call.status, call.json()) == (503, {"detail": words})
        for body, path in ((HI, "/chat"), ({**HI, "model_key": "theirs"}, "/chat")):
            call = await house.ask("POST", path, body)
            assert (call.status, call.json()) == (503, {"detail": words})
        assert (await load(house, "theirs"))["error"] == f"Failed to load model: {words}"
        await load(house, "a")
        await load(house, "b")
        assert await loaded(house) == ["a", "b"]
        assert (await load(house, "a", exclusive=True))["loaded"]
        assert await loaded(house) == ["a"]
        assert (await unload(house))["error"] == f"Failed to unload model: {words}"
        assert (await house.ask("GET", "/health")).json() == {
            "status": "ok",
            "backends": {"a": "ok", "b": "ok", "away": "unreachable"},
        }
        assert not house.engine.loaded()

    live(story, a=speaks(), b=speaks(), away=Away(error=error))
