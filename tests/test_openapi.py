"""The OpenAPI document of a listener: it tells all there is, nothing that there is not, and that as it is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.openapi import from_dict

from gateway.settings import Config, Listener, Mounted
from gateway.web.app import DIALECTS
from gateway.web.crossroads import CROSSROADS, MERGED
from gateway.web.described import crossroads
from gateway.web.described.dialects import DESCRIBED
from gateway.web.guard import OPEN
from tests.asgi import Call, House
from tests.houses import HELLO, Home, tells
from tests.openapis import Judge, closed, told
from tests.serving import ROOT
from tests.telling import STORIES

PATHS = {
    "anthropic": "/v1/messages",
    "openai": "/v1/chat/completions",
    "completion": "/v1/completions",
    "responses": "/v1/responses",
    "lmstudio": "/api/v1/chat",
    "lmstudio-v0": "/api/v0/chat/completions",
    "ollama": "/api/chat",
    "generate": "/api/generate",
    "brenda": "/v1/chat/completions",
    "conversation": "/generate",
}
"""A story's or request's file, without its kind -> the path that answers or takes it."""
DIALECT = {"completion": "openai", "responses": "openai", "lmstudio-v0": "lmstudio", "generate": "ollama"}
MEDIA = {".json": "application/json", ".sse": "text/event-stream", ".ndjson": "application/x-ndjson"}
REQUESTS = Path(__file__).parent / "requests"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.stem not in {"events", "canonical"})


def _name(path: Path) -> str:
    return f"{path.parent.name}-{path.name}"


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_m6_every_route_of_a_dialect_is_told_and_no_other(name: str) -> None:
    served = {path: set(methods) for path, methods in DIALECTS[name].routes.items()}
    assert {path: set(methods) for path, methods in DESCRIBED[name].operations.items()} == served


def test_m6_every_crossroad_is_told_and_no_other() -> None:
    assert set(crossroads.HOW) == set(CROSSROADS)
    assert {path: set(together.methods) for path, together in crossroads.MERGED.items()} == {
        path: set(methods) for path, methods in MERGED.items()
    }


@pytest.mark.parametrize(
    "names", [(), *((name,) for name in sorted(DIALECTS))], ids=lambda names: "-".join(names) or "all"
)
def test_m6_the_document_is_valid_openapi(names: tuple[str, ...]) -> None:
    for whole in (told(*names), told(*names, prefix="/x", keys=True)):
        from_dict(whole).validate()
        for schema in whole["components"]["schemas"].values():
            jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        text = json.dumps(whole)
        for place in set(re.findall(r'"\$ref": "#/components/(\w+)/([\w.-]+)"', text)):
            assert place[1] in whole["components"][place[0]], place
        ids = [one["operationId"] for methods in whole["paths"].values() for one in methods.values()]
        assert len(ids) == len(set(ids))
        assert all(one["summary"] for methods in whole["paths"].values() for one in methods.values())
        for path, methods in whole["paths"].items():
            for one in methods.values():
                named = {parameter["name"] for parameter in one.get("parameters", ()) if parameter.get("in") == "path"}
                assert named == set(re.findall(r"\{(\w+)\}", path))


@pytest.mark.parametrize("path", _files(STORIES), ids=_name)
def test_m6_every_story_is_told_as_the_document_says(path: Path) -> None:
    judge = Judge(closed(told(DIALECT.get(path.stem, path.stem))))
    assert judge.response(PATHS[path.stem], "post", 200, MEDIA[path.suffix], path.read_bytes()) == []


@pytest.mark.parametrize("path", _files(REQUESTS), ids=_name)
def test_m6_every_recorded_request_is_as_the_document_says(path: Path) -> None:
    judge = Judge(told(DIALECT.get(path.stem, path.stem)))
    # A number in quotes is read as one, and a role in capitals: no document asks for that.
    body = path.read_bytes().replace(b'"seed": "7"', b'"seed": 7').replace(b'"System"', b'"system"')
    assert judge.request(PATHS[path.stem], "post", body) == []


def ask(
    method: str, path: str, *headers: tuple[bytes, bytes], keys: tuple[str, ...] = (), dialects: Any = ("openai",)
) -> Call:
    """One request to a fresh gateway."""

    async def whole() -> Call:
        listener = Listener(port=11434, dialects=dialects)
        house = House(listener=listener, config=Config(keys=keys), a=Home(tells(HELLO)))
        call = await house.ask(method, path, b"", headers)
        await house.close()
        return call

    return asyncio.run(whole())


@pytest.mark.parametrize("path", ["/openapi.json", "/schema/openapi.json"])
def test_m6_a_listener_gives_its_document_with_its_dialects_at_their_prefixes(path: str) -> None:
    whole = ask("GET", path, dialects=("openai", Mounted(name="ollama", prefix="/o"))).json()
    assert whole["openapi"].startswith("3.1.")
    assert {"/v1/chat/completions", "/o/api/chat", "/o/", "/openapi.json", "/schema", "/health/live"} <= set(
        whole["paths"]
    )
    assert "/api/chat" not in whole["paths"]
    assert not any("messages" in path for path in whole["paths"]), "Anthropic's routes are not served here"
    assert [tag["name"] for tag in whole["tags"]] == ["openai", "ollama", "gateway"]


def test_m6_the_page_shows_every_operation_and_asks_for_nothing_else() -> None:
    listener = tuple(sorted(DIALECTS))
    call = ask("GET", "/schema", dialects=listener)
    assert call.headers[b"content-type"] == b"text/html; charset=utf-8"
    policy = call.headers[b"content-security-policy"].decode()
    html = call.body.decode()
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert not re.search(r"<script|<link|<img|<iframe|<form|\bsrc=|url\(|@import|\son\w+=|\sstyle=|https?://", html)
    for path, methods in told()["paths"].items():
        for method in methods:
            assert f'<b>{method.upper()}</b> <span class="path">{escape(path)}</span>' in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


@pytest.mark.parametrize("path", ["/openapi.json", "/schema/openapi.json", "/schema", "/help"])
def test_m6_where_there_are_keys_the_document_needs_one(path: str) -> None:
    assert ask("GET", path, keys=("a-secret-key-1",)).status == 401
    call = ask("GET", path, (b"authorization", b"Bearer a-secret-key-1"), keys=("a-secret-key-1",))
    assert call.status == 200
    assert b"a-secret-key-1" not in call.body
    assert ask("HEAD", path).status == 200
    assert ask("POST", path).status == 405


def test_m6_the_document_says_which_operations_need_a_key() -> None:
    whole = ask("GET", "/openapi.json", (b"x-api-key", b"a-secret-key-1"), keys=("a-secret-key-1",)).json()
    assert whole["security"] == [{"bearer": []}, {"key": []}]
    open_paths = {
        path
        for path, methods in whole["paths"].items()
        if methods["get" if "get" in methods else next(iter(methods))].get("security") == []
    }
    assert open_paths == OPEN
    assert "security" not in ask("GET", "/openapi.json").json()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_m6_who_looks_where_other_servers_have_the_page_is_sent_to_it(path: str) -> None:
    call = ask("GET", path)
    assert (call.status, call.headers[b"location"]) == (307, b"/schema")
    assert ask("GET", path, keys=("a-secret-key-1",)).status == 401


def test_m6_help_names_the_document_and_its_page() -> None:
    words = ask("GET", "/help").body.decode()
    assert "/openapi.json" in words
    assert "/schema" in words


def test_m6_the_document_is_made_when_somebody_asks_and_once() -> None:
    async def whole() -> None:
        house = House(listener=Listener(port=11434), a=Home(tells(HELLO)))
        calls = [house.call("GET", "/openapi.json") for _ in range(5)]
        calls[0].leave()
        await asyncio.sleep(0)
        calls[0].task.cancel()
        bodies = [(await call.end()).sent[1]["body"] for call in calls[1:]]
        again = (await house.ask("GET", "/openapi.json")).sent[1]["body"]
        assert all(body is again for body in bodies)
        await house.close()

    asyncio.run(whole())
    script = (
        "import sys, gateway.__main__, gateway.web.app; print([name for name in sys.modules if 'described' in name])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.strip() == "[]", "start-up makes nothing of it"


def test_m6_a_path_of_two_dialects_tells_of_both_and_how_it_is_decided() -> None:
    whole = told("openai", "anthropic", "brenda")
    one = whole["paths"]["/v1/models/{model}"]["get"]
    assert one["tags"] == ["openai", "anthropic"] or one["tags"] == ["anthropic", "openai"]
    assert "anthropic-version" in one["description"]
    names = [
        member["$ref"].rpartition("/")[2]
        for member in one["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    ]
    assert sorted(names) == ["AnthropicModelRow", "OpenAIModelRow"]


def test_m6_limits_defaults_and_needs_are_told() -> None:
    schemas = told("openai", "ollama", "anthropic", "lmstudio")["components"]["schemas"]
    chat = schemas["OpenAIChatRequest"]
    assert chat["required"] == ["model", "messages"]
    assert {"type": "number", "minimum": 0, "maximum": 2} in chat["properties"]["temperature"]["anyOf"]
    assert {"type": "integer", "minimum": 1, "maximum": 16} in chat["properties"]["n"]["anyOf"]
    assert schemas["OllamaChatRequest"]["properties"]["model"] == {"type": "string"}
    assert schemas["OllamaCreateRequest"]["properties"]["from"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert "_debug_render_only" in schemas["OllamaChatRequest"]["properties"]
    assert schemas["AnthropicReply"]["properties"]["content"]["items"]["discriminator"]["propertyName"] == "type"
    assert "type" in schemas["AnthropicReply"]["required"], "what is always sent is required"
    assert "meta" not in schemas["OpenAIModelRow"]["required"]
