"""The hybrid API's routes in memory: who is asked, what fails when, and what they tell beside others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import convert

from backends.honours import TABLE
from canonical.errors import BackendError
from canonical.events import Started, TextDelta
from canonical.models import Capability
from canonical.report import Honours
from gateway.settings import Config, Defaults, Listener
from tests.asgi import House
from tests.houses import tells
from tests.hybrid_houses import (
    ALONE,
    HI,
    SEES,
    SHOWN,
    live,
    load,
    loaded,
    said,
    speaks,
)
from tests.virtual_time import run

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
