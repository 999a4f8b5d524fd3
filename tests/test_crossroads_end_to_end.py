"""Every API on one port, each on a port of its own, and each under a prefix: nobody gets an answer that is meant for another.

The same requests are sent to all three; a row says how an answer looks that is this client's. Where two documents want one
route, the table says what either gets on the common port.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.serving import Served, serving

COMMON = ("ollama", "openai", "anthropic", "hybrid", "images", "brenda", "conversation", "libretranslate")
CONFIG = f"""
listeners:
  - {{port: 0, dialects: [{", ".join(COMMON)}]}}
  - {{port: 0, dialects: [{", ".join(f"{{name: {name}, prefix: /{name}}}" for name in COMMON)}]}}
{"".join(f"  - {{port: 0, dialects: [{name}]}}" + chr(10) for name in COMMON)}
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
  translation: {{type: marian, models_dir: ./models/translation, threads: 1}}
  painter: {{type: "tests.stripes:StripesBackend"}}
models:
  - {{id: pip, backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, thinking: off, temperature: 0, slots: 4}}
  - {{id: sdxl-base, backend: painter, name: echo}}
defaults: {{chat: pip}}
"""
ASKED = "What is 7 + 8?"
SAID = "7 + 8 = 15"
TALK = [{"role": "user", "content": ASKED}]
NONE = {"model": "none", "messages": TALK}
VERSION = {"anthropic-version": "2023-06-01"}
SESSION = {"X-Session-ID": "tab"}

Is = Callable[[httpx.Response], bool]


class Row(NamedTuple):
    """A request of one dialect's client, and whether an answer is its own."""

    dialect: str
    method: str
    path: str
    is_its: Is
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012  nobody changes it
    status: int = 200
    shared: Is | None = None
    """Where the common port answers several clients at once: what this one finds there."""


def keys(*names: str) -> Is:
    """An object with these names and no other."""
    return lambda answer: set(answer.json()) == set(names)


def has(*names: str) -> Is:
    """An object with these names, and perhaps more."""
    return lambda answer: set(names) <= set(answer.json())


def lines(first: str) -> Is:
    """A stream of several pieces that begins so."""
    return lambda answer: answer.text.startswith(first) and answer.text.count("\n") > 5


def worded(**shape: type) -> Is:
    """An error whose body is this and nothing else."""
    return lambda answer: {name: type(value) for name, value in answer.json().items()} == shape


def openai_error(answer: httpx.Response) -> bool:
    return set(answer.json()["error"]) == {"message", "type", "param", "code"}


def anthropic_error(answer: httpx.Response) -> bool:
    return bool(answer.json()["type"] == "error")


def in_session(also: Is) -> Is:
    """What every answer of Brenda's has."""
    return lambda answer: bool(answer.headers.get("X-Session-ID")) and also(answer)


def without_session(also: Is) -> Is:
    return lambda answer: "X-Session-ID" not in answer.headers and also(answer)


def names(answer: httpx.Response) -> bool:
    return bool(answer.json() == {"models": ["pip"]})


def loaded(rows: Any) -> bool:
    return isinstance(rows, list) and all({"key", "display_name", "loaded"} <= set(row) for row in rows)


def painters(answer: httpx.Response) -> bool:
    rows = {row["id"]: row for row in answer.json()["models"]}
    return {"name", "supported_loras", "loaded", "defaults"} <= set(rows["sdxl-base"])


def job_error(answer: httpx.Response) -> bool:
    return set(answer.json()) == {"status", "error", "detail"}


TABLE = [
    # GET /v1/models: one object for OpenAI's clients and Brenda's, another one for Anthropic's
    Row("openai", "GET", "/v1/models", keys("object", "data"), shared=has("object", "data", "models")),
    Row("brenda", "GET", "/v1/models", in_session(names), shared=in_session(lambda a: a.json()["models"] == ["pip"])),
    Row("anthropic", "GET", "/v1/models", keys("data", "has_more", "first_id", "last_id"), headers=VERSION),
    Row("openai", "GET", "/v1/models/pip", without_session(has("id", "object", "owned_by"))),
    Row("anthropic", "GET", "/v1/models/pip", has("type", "display_name"), headers=VERSION),
    Row("brenda", "POST", "/v1/models/pip/load", in_session(lambda a: a.text.endswith('data: {"status":"loaded"}\n\n'))),
    # GET /models: OpenAI's without /v1, and what the hybrid API has loaded
    Row("openai", "GET", "/models", keys("object", "data"), shared=has("object", "data", "models")),
    Row("hybrid", "GET", "/models", lambda a: loaded(a.json()), shared=lambda a: loaded(a.json()["models"])),
    Row("images", "GET", "/models", lambda a: keys("models")(a) and painters(a), shared=painters),
    # GET /health: one object
    Row("hybrid", "GET", "/health", keys("status", "backends"), shared=has("status", "backends")),
    Row("images", "GET", "/health", keys("status", "backends", "queue")),
    Row("libretranslate", "GET", "/health", keys("status"), shared=lambda a: a.json()["status"] == "ok"),
    # POST /v1/chat/completions: OpenAI's, unless it bears one of Brenda's marks
    Row("openai", "POST", "/v1/chat/completions", without_session(has("id", "choices")), {"model": "pip", "messages": TALK}),
    Row("openai", "POST", "/v1/chat/completions", without_session(lines('data: {"id"')),
        {"model": "pip", "messages": TALK, "stream": True}),
    Row("openai", "POST", "/v1/chat/completions", without_session(openai_error), NONE, status=404),
    *(
        Row("brenda", "POST", "/v1/chat/completions", in_session(also), {"model": "pip", **mark, **more}, headers)
        for mark, headers in (
            ({"messages": TALK, "system": "Be brief."}, {}),
            ({"messages": [{"role": "ai", "content": "Hello."}, *TALK]}, {}),
            ({"messages": TALK}, SESSION),
            ({"messages": TALK}, {"x-session-id": "tab"}),
        )
        for more, also in (({}, has("choices")), ({"stream": True}, lines("data: 7\n\n")))
    ),
    Row("brenda", "POST", "/v1/chat/completions", in_session(worded(error=str)), NONE, SESSION, 404),
    Row("brenda", "POST", "/v1/chat/completions", in_session(worded(error=str)), {"messages": TALK}, {"X-Session-ID": "new"}, 400),
    # What has one owner
    Row("brenda", "GET", "/v1/session", in_session(keys("session_id", "current_model", "has_model_loaded"))),
    Row("brenda", "POST", "/v1/stop", in_session(worded(error=str)), status=400),
    Row("brenda", "GET", "/v1/translation/languages", in_session(lambda a: a.json()["languages"]["fr"] == ["de", "en"])),
    Row("brenda", "POST", "/v1/translation/translate",
        in_session(lambda a: a.json() == {"translated_text": "bonjour", "from": "en", "to": "fr"}),
        {"text": "hello", "from_lang": "en", "to_lang": "fr"}),
    Row("brenda", "POST", "/v1/images/analyze", in_session(worded(error=str)), {"image": "x", "labels": []}, status=400),
    Row("brenda", "POST", "/v1/images/ocr", in_session(worded(error=str)), {}, status=400),
    Row("libretranslate", "POST", "/translate", lambda a: a.json()["translatedText"] == "bonjour",
        {"q": "hello", "source": "en", "target": "fr"}),
    Row("libretranslate", "POST", "/translate", worded(error=str), {"q": "hello"}, status=400),
    Row("libretranslate", "GET", "/languages", lambda a: {row["code"] for row in a.json()} == {"de", "en", "fr"}),
    Row("hybrid", "POST", "/chat", keys("model", "content", "stop_reason", "predicted_tokens"), {"messages": TALK}),
    Row("hybrid", "POST", "/chat/regular/stream", lines('{"type":"fragment"'), {"messages": TALK}),
    Row("hybrid", "POST", "/chat", worded(detail=str), {"model_key": "none", "messages": TALK}, status=404),
    Row("hybrid", "POST", "/chat", worded(detail=list), {}, status=422),
    Row("hybrid", "POST", "/models/load", keys("loaded", "error"), {"model_key": "none"}),
    # POST /generate: by the kind of the model that is named, else by what only pictures have
    Row("conversation", "POST", "/generate", lines('data: {"model":"pip"'), {"prompt": ASKED}),
    Row("conversation", "POST", "/generate", lines('data: {"model":"pip"'), {"prompt": ASKED, "model": "pip"}),
    Row("images", "POST", "/generate", has("job_id", "state", "meta"), {"prompt": ASKED, "model": "sdxl-base"}),
    Row("images", "POST", "/generate", has("job_id", "state", "meta"), {"prompt": ASKED, "seed": 42}),
    Row("images", "POST", "/generate", job_error, {"prompt": ASKED, "model": "sdxl-bas"}, status=404),
    Row("images", "POST", "/generate", job_error, {"prompt": ASKED, "width": 7}, status=422),
    Row("images", "GET", "/image/none", job_error, status=404),
    Row("images", "GET", "/status/none", job_error, status=404),
    Row("images", "GET", "/jobs", keys("jobs", "next")),
    Row("images", "GET", "/loras", lambda a: [row["id"] for row in a.json()["loras"]] == ["bright", "dark"]),
    Row("conversation", "POST", "/generate", worded(detail=list), {}, status=422),
    Row("conversation", "GET", "/api/models", lambda a: a.json() == [{"model": "pip", "version": "latest"}]),
    Row("conversation", "GET", "/api/conversation/none", worded(detail=str), status=404),
    Row("ollama", "POST", "/api/chat", lambda a: a.json()["message"]["content"] == SAID,
        {"model": "pip", "messages": TALK, "stream": False}),
    Row("ollama", "POST", "/api/generate", lines('{"model":"pip"'), {"model": "pip", "prompt": ASKED}),
    Row("ollama", "POST", "/api/chat", worded(error=str), NONE, status=404),
    Row("ollama", "GET", "/api/tags", lambda a: "pip:latest" in {row["name"] for row in a.json()["models"]}),
    Row("ollama", "GET", "/", lambda a: a.text == "Ollama is running"),
    Row("anthropic", "POST", "/v1/messages", has("type", "role", "content"), {"model": "pip", "max_tokens": 20, "messages": TALK}),
    Row("anthropic", "POST", "/v1/messages", anthropic_error, {**NONE, "max_tokens": 20}, status=404),
]  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG, listeners=2 + len(COMMON)) as served:
        yield served


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.dialect} {row.method} {row.path} {row.status}")
def test_every_client_gets_its_own_answer(gateway: Served, row: Row) -> None:
    def ask(url: str) -> httpx.Response:
        sent = None if row.body is None else json.dumps(row.body).encode()
        answer = httpx.request(
            row.method, url + row.path, content=sent, headers=row.headers, timeout=60, trust_env=False
        )
        assert answer.status_code == row.status, answer.text
        return answer

    common, prefixed, *alone = gateway.urls
    answer = ask(common)
    assert (row.shared or row.is_its)(answer), answer.text
    for url in (f"{prefixed}/{row.dialect}", alone[COMMON.index(row.dialect)]):
        answer = ask(url)
        assert row.is_its(answer), answer.text


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.dialect} {row.method} {row.path} {row.status}")
def test_what_another_dialect_has_is_not_there_where_it_is_not_served(gateway: Served, row: Row) -> None:
    """A port of one API answers no other's clients, or as its own."""
    owners = {(one.dialect, one.method, one.path) for one in TABLE}
    for name, url in zip(COMMON, gateway.urls[2:], strict=True):
        if (name, row.method, row.path) in owners:
            continue
        sent = None if row.body is None else json.dumps(row.body).encode()
        answer = httpx.request(
            row.method, url + row.path, content=sent, headers=row.headers, timeout=60, trust_env=False
        )
        assert answer.status_code in {404, 405}, (name, answer.text)
