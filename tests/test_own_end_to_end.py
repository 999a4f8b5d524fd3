"""What a model brings along holds on every route of every dialect, whether its entry, a Modelfile or a creation says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import serving

CONFIG = """
listeners: [{{port: 0}}]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
  demo: {{type: echo}}
  other: {{type: echo}}
models:
  - id: ada
    backend: local
    file: pip.gguf
    mmproj: pip-mmproj.gguf
    thinking: off
    system: You are a helpful assistant.
    parameters: {{temperature: 0, num_ctx: 512}}
    messages: [{{role: user, content: My name is Ada.}}, {{role: assistant, content: "Nice to meet you, Ada!"}}]
  - {{id: short, backend: demo, name: echo, system: Never seen, parameters: {{num_predict: 2, top_k: 3}}, strict: true}}
  - {{id: file, backend: other, name: echo, modelfile: {modelfile}}}
"""
QUESTION = "What is my name?"
KNOWN = "Your name is Ada."


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    modelfile = tmp_path_factory.mktemp("modelfile") / "Modelfile"
    modelfile.write_text('FROM anything\nSYSTEM """From a\nfile."""\nPARAMETER stop "stop here"\nMESSAGE user Hi\n')
    with serving(CONFIG.format(modelfile=modelfile)) as served:
        made = {"model": "made", "from": "ada", "parameters": {"temperature": 0}, "stream": False}
        made["messages"] = [
            {"role": "user", "content": "My name is Ada."},
            {"role": "assistant", "content": "Nice to meet you, Ada!"},
        ]
        reply = httpx.post(f"{served.url}/api/create", json=made, timeout=60)
        assert reply.json() == {"status": "success"}, reply.text
        yield served.url


def post(url: str, path: str, body: dict[str, Any]) -> Any:
    reply = httpx.post(f"{url}{path}", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


TURN = {"role": "user", "content": QUESTION}
ROUTES = {
    "/v1/chat/completions": ({"messages": [TURN]}, lambda reply: reply["choices"][0]["message"]["content"]),
    "/v1/responses": ({"input": QUESTION}, lambda reply: reply["output"][-1]["content"][0]["text"]),
    "/v1/messages": ({"messages": [TURN], "max_tokens": 50}, lambda reply: reply["content"][-1]["text"]),
    "/api/chat": ({"messages": [TURN], "stream": False}, lambda reply: reply["message"]["content"]),
    "/api/generate": ({"prompt": QUESTION, "stream": False}, lambda reply: reply["response"]),
}


@pytest.mark.parametrize("model", ["ada", "made"])
@pytest.mark.parametrize("path", ROUTES)
def test_every_dialect_has_the_models_conversation(url: str, path: str, model: str) -> None:
    body, text = ROUTES[path]
    assert text(post(url, path, {"model": model, **body})) == KNOWN


def test_raw_prompts_get_none_of_it(url: str) -> None:
    raw = post(url, "/api/generate", {"model": "made", "prompt": QUESTION, "raw": True, "stream": False})
    assert raw["prompt_eval_count"] < 15
    plain = post(url, "/v1/completions", {"model": "made", "prompt": QUESTION, "max_tokens": 1})
    assert plain["usage"]["prompt_tokens"] < 15


def test_what_a_client_says_comes_first_and_the_report_is_about_that_alone(url: str) -> None:
    turns = [{"role": "user", "content": "one two three four"}]
    # The entry is strict, and its backend drops top_k: but no client said it.
    reply = httpx.post(f"{url}/v1/chat/completions", json={"model": "short", "messages": turns}, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] == 2
    longer = post(url, "/v1/chat/completions", {"model": "short", "messages": turns, "max_tokens": 3})
    assert longer["usage"]["completion_tokens"] == 3
    refused = httpx.post(
        f"{url}/v1/chat/completions", json={"model": "short", "messages": turns, "top_k": 3}, timeout=60
    )
    assert refused.status_code == 400


def test_show_tells_it(url: str) -> None:
    ada = post(url, "/api/show", {"model": "ada"})
    assert ada["system"] == "You are a helpful assistant."
    assert ada["messages"][0] == {"role": "user", "content": "My name is Ada."}
    assert ada["parameters"].split() == ["temperature", "0", "num_ctx", "512"]
    file = post(url, "/api/show", {"model": "file"})
    assert file["system"] == "From a\nfile."
    assert file["parameters"].split(None, 1)[1] == '"stop here"'
    made = post(url, "/api/show", {"model": "made"})
    assert made["messages"][1]["content"] == "Nice to meet you, Ada!"
    assert "vision" in made["capabilities"]


def test_load_options_of_the_entry_hold(url: str) -> None:
    post(url, "/api/chat", {"model": "ada", "messages": [TURN], "stream": False})
    rows = {row["model"]: row for row in httpx.get(f"{url}/api/ps", timeout=60).json()["models"]}
    assert rows["ada:latest"]["context_length"] == 512


def test_what_cannot_be_is_a_line_about_its_place(tmp_path: Path) -> None:
    from gateway.config import ConfigError, settle

    (tmp_path / "bad").write_text("FROM x\nPARAMETER temperature hot\n")
    for keys, words in (
        ({"parameters": {"temprature": 1}}, "unknown parameter 'temprature'"),
        ({"parameters": {"top_k": "many"}}, "top_k"),
        ({"modelfile": "nowhere"}, "cannot be read"),
        ({"modelfile": "bad"}, "modelfile"),
        ({"messages": [{"role": "robot", "content": ""}]}, "role"),
    ):
        document = {"backends": {"demo": {"type": "echo"}}, "models": [{"id": "m", "backend": "demo", **keys}]}
        with pytest.raises((ConfigError), match=words) as failed:
            settle(document, base=tmp_path, environ={})
        assert "$.models[0]" in str(failed.value)
