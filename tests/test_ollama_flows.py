"""What Ollama's clients do around models, step by step as each of them does it, and what it looks at in the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from canonical.digests import digest_of
from canonical.errors import BackendTimeout, BackendUnavailable, GatewayError
from canonical.models import Capability, ModelDetails
from tests.asgi import House
from tests.houses import HELLO, Home, tells
from tests.shelf import Shelf
from tests.virtual_time import run

CHAT = [{"role": "user", "content": "hi"}]


def on_house(steps: Any) -> None:
    async def whole() -> None:
        shelf = Shelf()
        house = House(shelf=shelf, pip=Home(tells(HELLO)), models=())
        await steps(house, shelf)
        await house.close()

    run(whole())


def test_the_command_line_runs_a_model_that_is_not_there():
    """``ollama run far``: HEAD /, show (404 makes it pull), pull, show for its abilities, then an empty prompt to load."""

    async def steps(house: House, _: Shelf) -> None:
        assert (await house.ask("HEAD", "/")).status == 200
        missing = await house.ask("POST", "/api/show", {"model": "far"})
        assert missing.status == 404
        assert "not found" in missing.json()["error"]
        pulled = await house.ask("POST", "/api/pull", {"model": "far"})
        assert all(len(line["digest"]) == 71 for line in pulled.lines() if "digest" in line)
        assert pulled.lines()[-1] == {"status": "success"}
        shown = (await house.ask("POST", "/api/show", {"model": "far"})).json()
        assert isinstance(shown["model_info"], dict)
        assert "completion" in shown["capabilities"]
        loaded = await house.ask("POST", "/api/generate", {"model": "far", "prompt": ""})
        assert loaded.json()["done_reason"] == "load"
        thinks = {"model": "far", "think": True}  # ``--think``: refused before it shows its prompt
        refused = await house.ask("POST", "/api/generate", thinks)
        assert (refused.status, refused.json()["error"]) == (400, '"far" does not support thinking')
        assert (await house.ask("POST", "/api/chat", {**thinks, "think": "hard"})).status == 400
        for harmless in ({"think": False}, {"keep_alive": 0}):
            assert (await house.ask("POST", "/api/generate", {**thinks, **harmless})).status == 200
        chat = await house.ask("POST", "/api/chat", {"model": "far", "messages": CHAT})
        assert chat.lines()[-1]["done"] is True

    on_house(steps)


def test_the_command_line_lists_stops_and_removes():
    """It cuts digests to 12 characters; ``rm`` unloads first and sends ``name`` in the body of a DELETE."""

    async def steps(house: House, shelf: Shelf) -> None:
        await house.ask("POST", "/api/chat", {"model": "have", "messages": CHAT})
        for path in ("/api/tags", "/api/ps"):
            rows = (await house.ask("GET", path)).json()["models"]
            assert {len(row["digest"]) for row in rows} == {64}
            assert all(row["name"] == row["model"] and ":" in row["name"] for row in rows)
            assert all(
                isinstance(text, str) for row in rows for text in row["details"].values() if not isinstance(text, list)
            )
        assert (await house.ask("POST", "/api/show", {"model": "have"})).status == 200
        stopped = await house.ask("POST", "/api/generate", {"model": "have", "keep_alive": 0})
        assert stopped.json()["done_reason"] == "unload"
        assert shelf.open_models["have:latest"].closed
        removed = await house.ask("DELETE", "/api/delete", {"name": "have", "model": "have"})
        assert (removed.status, removed.body) == (200, b"")
        assert (await house.ask("GET", "/api/ps")).json() == {"models": []}

    on_house(steps)


def test_the_command_line_makes_a_model_of_a_modelfile():
    """It reads the Modelfile itself: HEAD each blob, POST those that are missing, then create with what the file said."""

    async def steps(house: House, shelf: Shelf) -> None:
        weights = b"GGUF weights"
        digest = digest_of(weights)
        assert (await house.ask("HEAD", f"/api/blobs/{digest}")).status == 404
        assert (await house.ask("POST", f"/api/blobs/{digest}", weights)).status == 201
        assert (await house.ask("HEAD", f"/api/blobs/{digest}")).status == 200
        body = {
            "model": "made",
            "files": {"tiny.gguf": digest},
            "parameters": {"stop": ["<|end|>"], "temperature": 0.2},
        }
        lines = (await house.ask("POST", "/api/create", {**body, "system": "You answer.", "messages": CHAT})).lines()
        assert lines[-1] == {"status": "success"}
        assert shelf.recipes["made:latest"].files == {"tiny.gguf": digest}
        shown = (await house.ask("POST", "/api/show", {"model": "made"})).json()
        assert shown["parameters"].splitlines() == [
            'stop                           "<|end|>"',
            "temperature                    0.2",
        ]

    on_house(steps)


def test_home_assistant_and_open_webui_pull():
    """One wants a single JSON object in the end, the other NDJSON, and both a JSON content type."""

    async def steps(house: House, _: Shelf) -> None:
        whole = await house.ask("POST", "/api/pull", {"model": "far", "stream": False})
        assert whole.headers[b"content-type"].startswith(b"application/json")
        assert json.loads(whole.body) == {"status": "success"}
        stream = await house.ask("POST", "/api/pull", {"model": "further", "insecure": True})
        assert stream.headers[b"content-type"] == b"application/x-ndjson"
        assert all("error" not in line for line in stream.lines())

    on_house(steps)


@pytest.mark.parametrize("trouble", [BackendUnavailable("connection refused"), BackendTimeout("no answer for 60 s")])
def test_a_model_whose_server_is_away_does_not_empty_zeds_list(trouble: GatewayError):
    """It asks about each model of the list, and one failure loses it all: then what is known of the model is told."""

    class Away(Home):
        async def details(self, name: str) -> ModelDetails:
            raise trouble

    async def whole() -> None:
        house = House(away=Away(abilities=(Capability.CHAT, Capability.TOOLS)), pip=Home(tells(HELLO)), models=())
        for row in (await house.ask("GET", "/api/tags")).json()["models"]:
            shown = await house.ask("POST", "/api/show", {"model": row["name"]})
            assert shown.status == 200
            assert shown.json()["capabilities"] == row["capabilities"]
            assert shown.json()["model_info"]["general.architecture"] == "unknown"
        assert (await house.ask("POST", "/api/show", {"model": "none"})).status == 404
        await house.close()

    run(whole())


def test_continue_asks_by_the_older_name_and_reads_the_parameters():
    async def steps(house: House, _: Shelf) -> None:
        made = {"model": "ide", "from": "have", "parameters": {"num_ctx": 8192, "stop": ['"', "\n"]}, "stream": False}
        assert (await house.ask("POST", "/api/create", made)).json() == {"status": "success"}
        shown = (await house.ask("POST", "/api/show", {"name": "ide"})).json()
        found = [line.split(None, 1) for line in shown["parameters"].splitlines()]
        assert [(name, json.loads(value)) for name, value in found] == [
            ("num_ctx", 8192),
            ("stop", '"'),
            ("stop", "\n"),
        ]

    on_house(steps)


def test_a_copy_gives_a_model_a_name_that_cloud_clients_ask_for():
    async def steps(house: House, _: Shelf) -> None:
        assert (await house.ask("POST", "/api/copy", {"source": "have", "destination": "gpt-4"})).status == 200
        call = await house.ask("POST", "/v1/chat/completions", {"model": "gpt-4", "messages": CHAT})
        assert call.json()["choices"][0]["message"]["content"] == "Hello"
        ids = [row["id"] for row in (await house.ask("GET", "/v1/models")).json()["data"]]
        assert "gpt-4:latest" in ids
        assert (await house.ask("GET", "/v1/models/gpt-4")).json()["id"]

    on_house(steps)


def test_questions_that_new_command_lines_ask_are_answered_in_json():
    async def steps(house: House, _: Shelf) -> None:
        for method, path, status in (
            ("POST", "/api/me", 401),
            ("GET", "/api/status", 200),
            ("GET", "/api/experimental/model-recommendations", 200),
            ("POST", "/v1/systemone", 404),
            ("GET", "/api/pull", 405),
            ("GET", "/api/delete", 405),
        ):
            call = await house.ask(method, path, b"{}" if method == "POST" else b"")
            assert call.status == status
            assert isinstance(call.json(), dict)

    on_house(steps)
