"""Ollama's pulls, in its words, over a store in memory: shared, left, stopped."""

from __future__ import annotations

import asyncio

import pytest

from canonical.models import ModelInfo
from canonical.recipe import Recipe
from tests.shelf import FAR, FAR_DIGEST, at_a_shelf, ndjson

PULLED = [
    {"status": "pulling manifest"},
    {"status": f"pulling {FAR_DIGEST[7:19]}", "digest": FAR_DIGEST, "total": len(FAR)},
    {"status": f"pulling {FAR_DIGEST[7:19]}", "digest": FAR_DIGEST, "total": len(FAR), "completed": len(FAR)},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]


@pytest.mark.parametrize("field", ["model", "name", "Model"])
@at_a_shelf
async def test_a_pull_tells_its_progress_and_the_next_request_finds_the_model(a, shelf, field):
    before = await a.ask("POST", "/api/chat", {"model": "far", "messages": [{"role": "user", "content": "x"}]})
    assert before.status == 404
    told = ndjson(await a.ask("POST", "/api/pull", {field: "far"}))
    assert [line["status"] for line in told if line not in told[:1]][-3:] == [line["status"] for line in PULLED[-3:]]
    assert told[0] == PULLED[0]
    assert told[-4] == PULLED[2]
    assert all("completed" not in line or line["completed"] for line in told)
    after = await a.ask("POST", "/api/chat", {"model": "far", "messages": [{"role": "user", "content": "x"}]})
    assert after.status == 200


@pytest.mark.parametrize("name", ["far", "FAR:latest", "library/far", "registry.ollama.ai/library/far:latest"])
@at_a_shelf
async def test_a_model_is_served_under_the_name_by_which_it_was_pulled(a, shelf, name):
    await a.ask("POST", "/api/pull", {"model": name})
    call = await a.ask("POST", "/api/chat", {"model": name, "messages": [{"role": "user", "content": "x"}]})
    assert call.status == 200
    assert call.lines()[0]["model"] == name
    assert (await a.ask("POST", "/api/show", {"model": name})).status == 200
    assert (await a.ask("DELETE", "/api/delete", {"model": name})).status == 200


@at_a_shelf
async def test_a_pull_that_is_not_streamed_is_one_object(a, shelf):
    call = await a.ask("POST", "/api/pull", {"model": "far", "stream": False})
    assert (call.status, call.json()) == (200, {"status": "success"})
    call = await a.ask("POST", "/api/pull", {"model": "none", "stream": False})
    assert (call.status, call.json()) == (500, {"error": "pull model manifest: file does not exist"})


@at_a_shelf
async def test_a_model_that_nobody_has_is_a_line_behind_the_first(a, shelf):
    lines = ndjson(await a.ask("POST", "/api/pull", {"model": "none"}))
    assert lines == [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    lines = ndjson(await a.ask("POST", "/api/push", {"model": "none"}))
    assert lines[0] == {"status": "retrieving manifest"}
    assert "not found" in lines[1]["error"]
    a.engine._backends["shelf"].far["broken"] = b"broken"
    lines = ndjson(await a.ask("POST", "/api/pull", {"model": "broken"}))
    assert lines[-1] == {"error": "max retries exceeded: EOF"}


@pytest.mark.parametrize(
    "name", ["", "a b", "a/b/c/d", "/etc/passwd", "./x.gguf", "~/x", "file:///etc/x", "m@sha256:5"]
)
@pytest.mark.parametrize("path", ["/api/pull", "/api/push", "/api/create"])
@at_a_shelf
async def test_what_is_no_name_is_refused_before_anything_is_said(a, shelf, path, name):
    call = await a.ask("POST", path, {"model": name, "from": "have"})
    if path == "/api/push" and name in {"a b", "a/b/c/d", "m@sha256:5"}:  # the fake one does not look at them
        assert call.status == 200
    else:
        assert (call.status, call.json()) == (400, {"error": "invalid model name"})
    assert list(shelf.rows) == ["have:latest", "file:latest", "own:latest"]


@pytest.mark.parametrize("name", ["pip", "PIP:latest", "pop", "home/m", "mine"])
@at_a_shelf
async def test_a_model_that_is_served_by_configuration_is_there_already(a, shelf, name):
    assert ndjson(await a.ask("POST", "/api/pull", {"model": name})) == [{"status": "success"}]
    call = await a.ask("POST", "/api/pull", {"model": name, "stream": False})
    assert call.json() == {"status": "success"}
    assert shelf.pulls == 0


@at_a_shelf
async def test_a_configured_model_that_is_not_there_yet_is_pulled_under_its_backends_name(a, shelf):
    assert ndjson(await a.ask("POST", "/api/pull", {"model": "later"}))[-1] == {"status": "success"}
    chat = {"model": "later", "messages": [{"role": "user", "content": "x"}]}
    assert (await a.ask("POST", "/api/chat", chat)).status == 200


@at_a_shelf
async def test_two_pulls_of_one_model_are_one_and_the_late_one_learns_how_far_it_is(a, shelf):
    shelf.gate.clear()
    one = a.call("POST", "/api/pull", {"model": "far"})
    await one.until(2)
    shelf.gate.set()
    await one.until(3)
    shelf.gate.clear()
    two = a.call("POST", "/api/pull", {"model": "registry.ollama.ai/library/FAR:latest", "stream": True})
    await two.until(2)
    shelf.gate.set()
    await asyncio.gather(one.task, two.task)
    assert shelf.pulls == 1
    assert ndjson(one)[-1] == ndjson(two)[-1] == {"status": "success"}
    assert {line.get("digest", "") for line in two.lines()} == {"", FAR_DIGEST}


@at_a_shelf
async def test_a_pull_goes_on_for_who_stays_and_stops_when_the_last_leaves(a, shelf):
    shelf.gate.clear()
    one = a.call("POST", "/api/pull", {"model": "far"})
    two = a.call("POST", "/api/pull", {"model": "far", "stream": False})
    await one.until(2)
    one.leave()
    await one.end()
    assert shelf.stopped == 0
    two.leave()
    await two.end()
    assert shelf.stopped == 1
    assert "far:latest" not in shelf.rows
    shelf.gate.set()
    assert ndjson(await a.ask("POST", "/api/pull", {"model": "far"}))[-1] == {"status": "success"}
    assert shelf.pulls == 2


@at_a_shelf
async def test_who_comes_while_a_pull_is_being_stopped_begins_anew(a, shelf):
    shelf.gate.clear()
    one = a.call("POST", "/api/pull", {"model": "far"})
    await one.until(2)
    one.leave()
    two = a.call("POST", "/api/pull", {"model": "far"})
    shelf.gate.set()
    await asyncio.gather(one.task, two.task)
    assert ndjson(two)[-1] == {"status": "success"}


@at_a_shelf
async def test_who_leaves_when_all_is_fetched_and_only_the_list_is_made_anew_is_in_nobodys_way(a, shelf):
    await a.ask("GET", "/api/tags")
    listed, asked = shelf.models, asyncio.Event()

    async def held() -> list[ModelInfo]:
        asked.set()
        await asyncio.Event().wait()
        return []

    shelf.models = held  # type: ignore[method-assign]
    one = a.call("POST", "/api/pull", {"model": "far"})
    await asked.wait()
    one.leave()
    await one.end()
    shelf.models = listed  # type: ignore[method-assign]
    assert ndjson(await a.ask("POST", "/api/pull", {"model": "far"}))[-1] == {"status": "success"}
    assert shelf.pulls == 2


@at_a_shelf
async def test_the_end_of_the_gateway_stops_pulls(a, shelf):
    shelf.gate.clear()
    one = a.call("POST", "/api/pull", {"model": "far"})
    two = a.call("POST", "/api/pull", {"model": "far", "stream": False})
    await one.until(2)
    await a.engine.library.close()
    await asyncio.gather(one.task, two.task)
    assert shelf.stopped == 1
    assert one.lines()[-1] == {"error": "the gateway is shutting down"}
    assert (two.status, two.json()) == (503, {"error": "the gateway is shutting down"})
    late = await a.ask("POST", "/api/pull", {"model": "far"})
    assert late.status == 503


@pytest.mark.parametrize("kind", ["pull", "push", "create"])
@at_a_shelf
async def test_work_that_is_closed_has_ended_when_the_closing_has(a, shelf, kind):
    library = a.engine.library
    shelf.gate.clear()
    steps = library.create("new", Recipe(source="far")) if kind == "create" else getattr(library, kind)("far")
    assert await anext(steps)
    await steps.aclose()
    assert not library._shared
