"""The hybrid API's routes in memory: who is asked, exclusive loads under way beside others, and what fails when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from msgspec import convert

from backends.base import Need
from backends.honours import TABLE
from canonical.errors import BackendError, BackendUnavailable, OutOfMemory
from canonical.events import Finished, Started, TextDelta, Usage
from canonical.models import Capability, LoadedModel, ModelInfo
from canonical.report import Honours
from canonical.requests import Generate, LoadOptions
from gateway.settings import Config, Defaults, Limits, Listener, ModelEntry
from tests.asgi import Call, House
from tests.calling import until
from tests.houses import HELLO, Home, Story, tells
from tests.virtual_time import run

ALONE = Listener(port=8000, dialects=("hybrid",))
HI = {"messages": [{"role": "user", "content": "hi"}]}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
SHOWN = {"messages": [{"role": "user", "content": "hi", "images": [{"data_base64": PNG}]}]}
CHATS = (Capability.CHAT,)
SEES = (Capability.CHAT, Capability.VISION)


class Here(Home):
    """A model in this machine's memory."""

    async def need(self, name: str, options: LoadOptions) -> Need:
        return Need(ram=1)


class Away(Home):
    """A model of a server that has others in its memory, too."""

    def __init__(self, *there: str, error: Exception | None = None) -> None:
        super().__init__(tells(*[[event] for event in HELLO]))
        self.there, self.error = list(there), error

    async def models(self) -> list[ModelInfo]:
        if self.error is not None:
            raise self.error
        return [self.info]

    async def others(self) -> list[LoadedModel]:
        if self.error is not None:
            raise self.error
        return [LoadedModel(info=ModelInfo(id=name, backend="away")) for name in self.there]

    async def free(self, name: str) -> bool:
        if self.error is not None:
            raise self.error
        if name not in self.there:
            return False
        self.there.remove(name)
        return True


class Gate:
    """A model that says a word and goes on when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def story(self, _: Generate) -> Any:
        yield [Started("m"), TextDelta("Hel")]
        await self.open.wait()
        yield [TextDelta("lo"), Finished("stop", Usage(3, 2))]


def speaks(abilities: tuple[Capability, ...] = CHATS, story: Story | None = None, **more: Any) -> Here:
    return Here(story or tells(*[[event] for event in HELLO]), abilities=abilities, **more)


def live(story: Callable[[House], Coroutine[Any, Any, None]], *, config: Config | None = None, **homes: Home) -> None:
    async def life() -> None:
        house = House(listener=ALONE, config=config, **(homes or {"a": speaks()}))
        try:
            await story(house)
            await until(lambda: not house.gateway.running)
        finally:
            await house.close()

    run(life())


async def load(house: House, key: str, *, exclusive: bool = False) -> Any:
    return (await house.ask("POST", "/models/load", {"model_key": key, "exclusive": exclusive})).json()


async def unload(house: House, key: str = "") -> Any:
    body = {"model_key": key} if key else {"unload_all": True}
    return (await house.ask("POST", "/models/unload", body)).json()


async def loaded(house: House) -> list[str]:
    return [row["key"] for row in (await house.ask("GET", "/models")).json()]


def said(call: Call) -> str:
    assert call.status == 200, call.body
    return str(call.json()["model"])


# Who is asked


def test_h3_each_route_has_its_default() -> None:
    async def story(house: House) -> None:
        for path, body, model in (
            ("/chat", HI, "text"),
            ("/chat", SHOWN, "eyes"),
            ("/chat/regular", HI, "text"),
            ("/chat/vision", HI, "eyes"),
            ("/chat/vision", SHOWN, "eyes"),
            ("/chat/regular", {**HI, "model_key": "other"}, "other"),
            ("/chat/vision", {**HI, "model_key": "TEXT"}, "TEXT"),
        ):
            assert said(await house.ask("POST", path, body)) == model
            (*_, last) = (await house.ask("POST", f"{path}/stream", body)).lines()
            assert (last["type"], last["model"]) == ("done", model)
        call = await house.ask("POST", "/chat/regular", SHOWN)
        assert (call.status, call.json()) == (400, {"detail": "text does not support images"})

    homes = {"text": speaks(), "eyes": speaks(SEES), "other": speaks()}
    live(story, config=Config(defaults=Defaults(chat="text", vision="eyes")), **homes)


def test_h7_without_a_default_what_is_loaded_is_asked() -> None:
    async def story(house: House) -> None:
        for path in ("/chat", "/chat/stream", "/chat/regular", "/chat/vision", "/chat/vision/stream"):
            call = await house.ask("POST", path, HI)
            assert (call.status, call.json()) == (503, {"detail": "Chat service unavailable: No model loaded"})
        assert await load(house, "vectors")
        assert (await house.ask("POST", "/chat", HI)).status == 503
        await load(house, "text")
        assert said(await house.ask("POST", "/chat", HI)) == "text"
        assert (await house.ask("POST", "/chat", SHOWN)).status == 503
        await load(house, "eyes")
        assert said(await house.ask("POST", "/chat", SHOWN)) == "eyes"

    live(story, vectors=speaks((Capability.EMBED,)), text=speaks(), eyes=speaks(SEES))


def test_h2_what_is_loaded_by_name_stays() -> None:
    async def story(house: House) -> None:
        await load(house, "a")
        await house.ask("POST", "/chat", {**HI, "model_key": "b"})
        assert await loaded(house) == ["a", "b"]
        await asyncio.sleep(24 * 3600)
        assert await loaded(house) == ["a"]

    live(story, a=speaks(), b=speaks())


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


# What fails, and what is told besides


def test_h7_a_failure_amid_the_answer_is_its_last_line() -> None:
    async def story(house: House) -> None:
        lines = (await house.ask("POST", "/chat/stream", {**HI, "model_key": "a"})).lines()
        assert lines == [{"type": "fragment", "content": "Hel"}, {"type": "error", "detail": "it broke"}]
        call = await house.ask("POST", "/chat", {**HI, "model_key": "a"})
        assert (call.status, call.json()) == (502, {"detail": "it broke"})

    live(story, a=speaks(story=tells([Started("m"), TextDelta("Hel")], BackendError("it broke"))))


def test_h7_what_is_wrong_before_the_answer_has_its_status() -> None:
    async def story(house: House) -> None:
        for path in ("/chat", "/chat/stream"):
            call = await house.ask("POST", path, {**HI, "model_key": "nobody"})
            assert (call.status, call.json()) == (404, {"detail": "model 'nobody' not found"})
            call = await house.ask("POST", path, {"messages": []})
            assert (call.status, call.json()["detail"][0]["loc"]) == (422, ["body", "messages"])
        for path in ("/models/load", "/models/unload"):
            call = await house.ask("POST", path, b"[]")
            assert (call.status, call.json()["detail"][0]["loc"]) == (422, ["body"])
        call = await house.ask("GET", "/chat")
        assert (call.status, call.headers[b"allow"]) == (405, b"POST")
        assert list((await house.ask("GET", "/nothing")).json()) == ["detail"]
        assert not house.engine.loaded()

    live(story)


def test_h5_the_report_tells_what_becomes_of_the_config() -> None:
    async def story(house: House) -> None:
        body = {**HI, "model_key": "a", "config": {"temperature": 0, "topP": 1, "topK": 3}}
        call = await house.ask("POST", "/chat", body, [(b"dragoman-report", b"header")])
        told = json.loads(call.headers[b"dragoman-report"])
        assert set(told["honoured"]) == {"config.temperature", "config.topP"}
        assert told["dropped"] == ["config.topK"]
        call = await house.ask("POST", "/chat/stream", body, [(b"dragoman-report", b"body")])
        assert call.lines()[-1]["dragoman_report"]["dropped"] == ["config.topK"]
        call = await house.ask("POST", "/chat", body, [(b"dragoman-strict", b"true")])
        assert (call.status, call.json()["detail"]) == (400, "\"a\" cannot honour 'config.topK', and strict is on")

    home = speaks()
    home.model.honours = Honours(TABLE["openai"])
    live(story, a=home)


def test_keys_hold_and_a_key_that_may_not_manage_may_load() -> None:
    async def life() -> None:
        config = convert({"keys": [{"key": "key-of-ann", "manage": False}]}, Config)
        house = House(listener=ALONE, config=config, a=speaks())
        ann = [(b"authorization", b"Bearer key-of-ann")]
        try:
            for path in (
                "/chat",
                "/chat/regular/stream",
                "/models",
                "/models/load",
                "/models/unload",
                "/health",
                "/help",
            ):
                call = await house.ask("POST", path, HI)
                assert (call.status, list(call.json())) == (401, ["detail"])
            call = await house.ask("POST", "/models/load", {"model_key": "a"}, ann)
            assert call.json()["loaded"]
        finally:
            await house.close()

    run(life())


# About


@pytest.mark.parametrize("prefix", ["", "/lm"])
def test_h1_help_tells_every_route_that_answers(prefix: str) -> None:
    listener = convert({"port": 8000, "dialects": [{"name": "hybrid", "prefix": prefix}]}, Listener)

    async def life() -> None:
        house = House(listener=listener, a=speaks())
        try:
            told = (await house.ask("GET", f"{prefix}/help")).json()
            assert (told["schema"], told["openapi"]) == ("/schema", "/openapi.json")
            assert len(told["routes"]) == 11
            for route in told["routes"]:
                call = await house.ask(route["method"], route["path"], HI if route["method"] == "POST" else b"")
                assert call.status not in {404, 405}, route
                assert route["description"]
            documented = (await house.ask("GET", told["openapi"])).json()["paths"]
            for route in told["routes"]:
                assert documented[route["path"]][route["method"].lower()]["summary"] == route["description"]
        finally:
            await house.close()

    asyncio.run(life())  # the document is made in a thread


# Beside others


@pytest.mark.parametrize(
    "dialects", [("openai", "hybrid"), ("ollama", "openai", "hybrid"), ("hybrid", "openai")], ids=str
)
def test_h2_one_list_for_openais_clients_and_these(dialects: Any) -> None:
    async def life() -> None:
        house = House(listener=Listener(port=8000, dialects=dialects), a=speaks(), b=speaks())
        try:
            await load(house, "b")
            told = (await house.ask("GET", "/models")).json()
            if dialects[0] == "hybrid":
                assert [row["key"] for row in told] == ["b"]
            else:
                assert (told["object"], {row["id"] for row in told["data"]}) == ("list", {"a", "b"})
                assert [(row["id"], row["loaded"], row["supported_loras"]) for row in told["models"]] == [
                    ("b", True, [])
                ]
            listed = (await house.ask("GET", "/v1/models")).json()
            assert {row["id"] for row in listed["data"]} == {"a", "b"}
            assert said(await house.ask("POST", "/chat", {**HI, "model_key": "a"})) == "a"
            openai = await house.ask("POST", "/chat/completions", {**HI, "model": "a"})
            assert openai.json()["choices"]
            for path, field in (
                ("/chat/regular", "detail"),
                ("/models/load", "detail"),
                ("/chat/completions", "error"),
            ):
                assert field in (await house.ask("PUT", path, b"{}")).json()
        finally:
            await house.close()

    run(life())
