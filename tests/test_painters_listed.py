"""A model that paints is listed where its API knows pictures, and disturbs nobody who chats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from canonical.models import Capability
from gateway.settings import Listener
from tests.asgi import House
from tests.houses import HELLO, Home, tells
from tests.painter import Painter

CHATS = [Capability.CHAT, Capability.COMPLETE]
TURN = [{"role": "user", "content": "hi"}]


def lived(story: Callable[[House], Awaitable[None]], data: Path, *dialects: Any) -> None:
    """A gateway with ``talker``, which chats, and ``stripes``, which paints."""

    async def life() -> None:
        listener = Listener(port=11434, dialects=dialects) if dialects else Listener(port=11434)
        homes = {"talker": Home(tells(*[[event] for event in HELLO]), abilities=CHATS), "stripes": Painter()}
        house = House(listener=listener, data=data, **homes)
        try:
            await story(house)
        finally:
            await house.close()

    asyncio.run(life())


async def told(a: House, path: str, *headers: tuple[bytes, bytes]) -> Any:
    call = await a.ask("GET", path, headers=headers)
    assert call.status == 200, call.body
    return call.json()


def test_lists_of_chat_models_have_none_that_paint(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        assert [row["model"] for row in (await told(a, "/api/tags"))["models"]] == ["talker:latest"]
        everything = {row["model"]: row["capabilities"] for row in (await told(a, "/api/tags?kinds=all"))["models"]}
        assert everything == {"talker:latest": ["completion"], "stripes:latest": ["image"]}
        assert [row["model"] for row in await told(a, "/api/models")] == ["talker"]
        assert (await told(a, "/v1/models"))["models"] == ["talker"]
        of_anthropic = await told(a, "/v1/models", (b"anthropic-version", b"2023-06-01"))
        assert [row["id"] for row in of_anthropic["data"]] == ["talker"]

    async def of_lmstudio(a: House) -> None:
        assert [row["key"] for row in (await told(a, "/api/v1/models"))["models"]] == ["talker"]
        assert [row["id"] for row in (await told(a, "/api/v0/models"))["data"]] == ["talker"]
        assert (await a.ask("GET", "/api/v0/models/stripes")).status == 404

    lived(story, tmp_path)
    lived(of_lmstudio, tmp_path, "lmstudio")


def test_openais_list_has_it_and_says_what_it_gives(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        rows = {row["id"]: row for row in (await told(a, "/v1/models"))["data"]}
        assert rows.keys() == {"talker", "stripes"}
        assert (rows["stripes"]["capabilities"], rows["talker"]["capabilities"]) == (["paint"], ["chat", "complete"])
        assert rows["stripes"]["architecture"]["output_modalities"] == ["image"]
        assert rows["talker"]["architecture"]["output_modalities"] == ["text"]

    lived(story, tmp_path)
    lived(story, tmp_path, "openai")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": TURN}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/embeddings", {"input": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": TURN, "max_tokens": 9}),
        ("/api/chat", {"messages": TURN}),
        ("/api/generate", {"prompt": "hi"}),
        ("/api/embed", {"input": "hi"}),
        ("/chat", {"messages": TURN}),
    ],
)
def test_who_asks_it_for_words_is_told_that_it_has_none(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async def story(a: House) -> None:
        headers = [(b"anthropic-version", b"2023-06-01")] if path == "/v1/messages" else []
        call = await a.ask("POST", path, {**body, "model": "stripes", "model_key": "stripes"}, headers)
        assert (call.status, b"does not support" in call.body) == (400, True), call.body

    lived(story, tmp_path)


def test_ollama_tells_of_it_and_loads_it(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        shown = await a.ask("POST", "/api/show", {"model": "stripes"})
        assert shown.json()["capabilities"] == ["image"]
        loaded = await a.ask("POST", "/api/generate", {"model": "stripes"})
        assert loaded.json()["done_reason"] == "load"
        assert [row["name"] for row in (await told(a, "/api/ps"))["models"]] == ["stripes:latest"]
        freed = await a.ask("POST", "/api/generate", {"model": "stripes", "keep_alive": 0})
        assert freed.json()["done_reason"] == "unload"
        assert (await told(a, "/api/ps"))["models"] == []

    lived(story, tmp_path)
