"""An LM Studio behind the gateway, from outside: what clients of every dialect get, and what LM Studio is told for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import lmstudio
import pytest

from tests.lmstudio.server import Running, running
from tests.serving import serving

CONFIG = """
listeners: [{{port: 0, dialects: [ollama, openai, anthropic, lmstudio]}}]
backends:
  studio: {{type: lmstudio, url: "{url}"}}
models:
  - {{id: assistant, backend: studio, name: pip, load: {{context: 1024}}}}
"""


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Running, httpx.Client]]:
    with (
        running() as (studio, server),
        serving(CONFIG.format(url=studio.url)) as served,
        httpx.Client(base_url=served.url, timeout=20, trust_env=False) as client,
    ):
        yield server, client


def chat(client: httpx.Client, **more: object) -> httpx.Response:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "assistant", "messages": messages, "stream": False, **more}
    return client.post("/api/chat", json=body, headers={"Dragoman-Report": "header"})


def test_h6_a_model_of_lm_studio_has_ollamas_life(both: tuple[Running, httpx.Client]) -> None:
    server, client = both
    studio = server.studio
    assert {"assistant:latest", "acme/big:latest"} <= {row["name"] for row in client.get("/api/tags").json()["models"]}
    assert chat(client).json()["message"]["content"] == "Hello from the stand-in"
    assert studio.instances["pip"].context == 1024
    (row,) = client.get("/api/ps").json()["models"]
    assert (row["name"], row["context_length"]) == ("assistant:latest", 1024)

    longer = chat(client, options={"num_ctx": 2048}, keep_alive="20m")
    assert "options.num_ctx" in longer.headers["dragoman-report"].partition("approximated")[0]
    assert list(studio.instances) == ["pip"]
    assert studio.instances["pip"].context == 2048

    studio.keep(studio.rows["acme/big"], context=512)  # its user's
    assert {row["name"] for row in client.get("/api/ps").json()["models"]} == {"assistant:latest", "acme/big:latest"}
    assert client.post("/api/generate", json={"model": "assistant", "keep_alive": 0}).json()["done_reason"] == "unload"
    assert list(studio.instances) == ["acme/big"]
    studio.instances.clear()


def test_h6_every_dialect_is_answered_and_one_load_does_for_all(both: tuple[Running, httpx.Client]) -> None:
    server, client = both
    before = len(server.studio.asked("loadModel"))
    body = {"model": "assistant", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
    assert client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    version = {"anthropic-version": "2023-06-01"}
    assert client.post("/v1/messages", json=body, headers=version).json()["content"][0]["text"]
    assert client.post("/api/v1/chat", json={"model": "assistant", "input": "hi"}).json()["output"][0]["content"]
    assert client.post("/api/embed", json={"model": "embed", "input": "hi"}).json()["embeddings"]
    assert len(server.studio.asked("loadModel")) == before + 2  # the chat model's, and the other's


def test_a_restart_of_lm_studio_costs_no_answer(both: tuple[Running, httpx.Client]) -> None:
    server, client = both
    assert chat(client).status_code == 200
    server.stop()
    assert chat(client).status_code == 502
    server.studio.jit = False
    server.start()
    assert chat(client).json()["message"]["content"]
    assert server.studio.instances["pip"].context == 1024
    server.studio.jit = True


def test_a_client_that_leaves_stops_the_generation_there(both: tuple[Running, httpx.Client]) -> None:
    server, client = both
    body = {"model": "assistant", "messages": [{"role": "user", "content": "slow"}]}
    with client.stream("POST", "/api/chat", json=body) as answer:
        lines = answer.iter_lines()  # kept: when it goes, so does the connection
        assert '"done":false' in next(lines)
        assert server.studio.running == 1
    left = time.monotonic()
    while server.studio.running:
        assert time.monotonic() - left < 0.5
        time.sleep(0.01)


def test_what_is_pulled_there_is_there(both: tuple[Running, httpx.Client]) -> None:
    server, client = both
    lines = client.post("/api/pull", json={"model": "acme/new"}).text.splitlines()
    assert '"completed":1000' in lines[-3]
    assert lines.count('{"status":"success"}') == 1
    with lmstudio.Client(server.studio.host) as sdk:
        assert "acme/new" in {model.model_key for model in sdk.list_downloaded_models()}
    refused = client.request("DELETE", "/api/delete", json={"model": "acme/new"})
    assert (400 <= refused.status_code <= 501, "acme/new" in server.studio.rows) == (True, True)


def test_another_gateway_is_an_lm_studio_without_websockets() -> None:
    inside = """
listeners: [{port: 0, dialects: [lmstudio, openai]}]
backends: {local: {type: llama_cpp, models_dir: ./models, threads: 1}}
models: [{id: assistant, backend: local, file: pip.gguf, thinking: off}]
"""
    with serving(inside) as behind, serving(CONFIG.format(url=behind.url).partition("models:")[0]) as front:
        with httpx.Client(base_url=front.url, timeout=20, trust_env=False) as client:
            asked = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
            told = chat(client, **asked, options={"temperature": 0, "num_ctx": 1024}).json()
            assert told["message"]["content"] == "The capital of France is Paris."
            assert client.post("/api/generate", json={"model": "assistant", "keep_alive": 0}).status_code == 200
        rows = httpx.get(f"{behind.url}/api/v1/models", trust_env=False).json()["models"]
        assert not any(row["loaded_instances"] for row in rows)
