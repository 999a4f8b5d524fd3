"""How models are loaded, over HTTP: what requests want of it is done once and told, loads can be seen, what is pinned is there."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving import ROOT, Served, serving

CONFIG = f"""
listeners: [{{port: 0}}]
memory: {{ram: 1GB}}
backends:
  local: {{type: llama_cpp, models_dir: {ROOT}/models, slots: 2, context: 1024}}
models:
  - {{id: pip, backend: local, thinking: off}}
  - {{id: fixed, backend: local, file: pip.gguf, thinking: off, load_options: ignore}}
  - {{id: strict, backend: local, file: pip.gguf, thinking: off, load_options: refuse}}
  - {{id: vast, backend: local, file: pip.gguf, thinking: off, slots: 256, context: 4096}}
  - {{id: embed, backend: local, pinned: true}}
"""
ASKED = {"dragoman-report": "header"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG) as served:
        yield served


def call(gateway: Served, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, str], Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data, {"content-type": "application/json", **ASKED})
    try:
        with urllib.request.urlopen(request) as answer:
            return (
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                json.loads(answer.read()),
            )
    except urllib.error.HTTPError as error:
        return error.code, {}, json.loads(error.read())


def chat(gateway: Served, model: str, **options: Any) -> tuple[int, dict[str, Any], Any]:
    """The status, what became of the fields, the answer."""
    body = {"model": model, "stream": False, "messages": [{"role": "user", "content": "hi"}]}
    status, headers, answer = call(gateway, "/api/chat", {**body, "options": {"num_predict": 2, **options}})
    return status, json.loads(headers.get("dragoman-report", "{}")), answer


def loads(gateway: Served, model: str) -> int:
    return gateway.log().count(f" loaded local/{model}")


def there(gateway: Served) -> dict[str, dict[str, Any]]:
    return {row["name"].partition(":")[0]: row for row in call(gateway, "/api/ps")[2]["models"]}


def test_what_is_pinned_is_loaded_before_anybody_asks(gateway: Served) -> None:
    call(gateway, "/api/embed", {"model": "embed", "input": "x"})
    assert loads(gateway, "embed") == 1
    assert there(gateway)["embed"]["expires_at"] > "2100"


def test_a_longer_context_loads_the_model_anew_and_a_shorter_one_does_not(gateway: Served) -> None:
    for context in (None, 512, 2048, 1024, 2048):
        options = {} if context is None else {"num_ctx": context}
        status, report, _ = chat(gateway, "pip", **options)
        assert status == 200
        assert not context or "options.num_ctx" in report["honoured"]
    assert loads(gateway, "pip") == 2
    row = there(gateway)["pip"]
    assert row["context_length"] == 2048
    assert row["size"] > 64 * 1024 * 1024
    assert row["size_vram"] == 0


def test_the_time_of_expiry_stays_the_same_however_often_it_is_asked_for(gateway: Served) -> None:
    call(gateway, "/api/generate", {"model": "pip", "keep_alive": "1h"})
    assert len({there(gateway)["pip"]["expires_at"] for _ in range(50)}) == 1


def test_vectors_may_want_a_longer_context_too(gateway: Served) -> None:
    asked = {"model": "embed", "input": "x", "options": {"num_ctx": 300, "num_batch": 7}}
    status, headers, _ = call(gateway, "/api/embed", asked)
    assert status == 200
    report = json.loads(headers["dragoman-report"])
    assert "options.num_ctx" in report["honoured"]
    assert "options.num_batch" in report["dropped"], "an encoder takes a text in one batch"


def test_an_empty_request_loads_the_model_as_it_says(gateway: Served) -> None:
    assert call(gateway, "/api/chat", {"model": "pip", "messages": [], "options": {"num_ctx": 3000}})[0] == 200
    assert there(gateway)["pip"]["context_length"] == 3000


def test_more_than_the_model_knows_is_told_and_does_not_load_it_again_and_again(gateway: Served) -> None:
    before = loads(gateway, "pip")
    for _ in range(3):
        status, report, _ = chat(gateway, "pip", num_ctx=100_000, num_gpu=-1, use_mmap=True)
        assert status == 200
        assert "options.num_ctx" in report["dropped"]
    assert loads(gateway, "pip") <= before + 1


def test_a_wish_can_be_ignored_or_refused(gateway: Served) -> None:
    status, report, _ = chat(gateway, "fixed", num_ctx=2048)
    assert status == 200
    assert "options.num_ctx" in report["dropped"]
    assert loads(gateway, "fixed") == 1
    status, _, answer = chat(gateway, "strict", num_ctx=2048)
    assert status == 400
    assert "as configured" in answer["error"]
    assert chat(gateway, "strict", num_ctx=512)[0] == 200


def test_what_can_never_fit_is_a_503_that_says_so_and_closes_nothing(gateway: Served) -> None:
    chat(gateway, "pip")
    status, _, answer = chat(gateway, "vast")
    assert status == 503
    assert "'vast' requires more system memory" in answer["error"]
    assert {"pip", "embed"} <= there(gateway).keys()
