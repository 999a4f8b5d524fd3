"""LM Studio's REST of a running gateway: curl's documented examples, and every way to a model (promise H6's other side)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.chatting import told
from tests.registry import registry
from tests.serving import ROOT, Served, serving
from tests.ways import EMBED_WAYS, INSIDE, WAYS, four_ways

EXAMPLES = Path(__file__).parent / "lmstudio_examples"
KEY = "sk-lm-12345678:abcdefghijklmnopqrst"
SPEAKS = "listeners: [{port: 0, dialects: [lmstudio, ollama, openai, anthropic]}]"
CHATS = (
    "ibm/granite-4-micro",
    "qwen/qwen3-vl-4b",
    "openai/gpt-oss-20b",
    "granite-3.0-2b-instruct",
    "qwen2-vl-7b-instruct",
)
VECTORS = "text-embedding-nomic-embed-text-v1.5"
DOCUMENTED = f"""
{SPEAKS}
keys: ["{KEY}"]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
models:
{"".join(f'  - {{id: "{id}", backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, thinking: off}}' + chr(10) for id in CHATS)}
  - {{id: {VECTORS}, backend: local, file: embed.gguf}}
"""
STATS = {
    "input_tokens", "total_output_tokens", "reasoning_output_tokens", "tokens_per_second", "time_to_first_token_seconds",
}  # fmt: skip
ASK = "What is the capital of France?"
PARIS = "The capital of France is Paris."


# The documented examples


@pytest.fixture(scope="module")
def documented() -> Iterator[Served]:
    with serving(DOCUMENTED) as gateway:
        yield gateway


def curl(gateway: Served, name: str, **words: str) -> tuple[int, Any]:
    """Run an example as it is printed, on the gateway's port; ``words`` replace some of its own."""
    command = (EXAMPLES / f"{name}.sh").read_text().replace("http://localhost:1234", gateway.url)
    command = command.replace("curl ", r"curl -s -w '\n%{http_code}' ", 1)
    for old, new in words.items():
        assert old in command
        command = command.replace(old, new)
    environ = {**os.environ, "LM_API_TOKEN": KEY, "NO_PROXY": "*"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environ, timeout=60, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


@needs_curl
@pytest.mark.parametrize("name", ["chat", "chat_not_stored", "chat_with_image"])
def test_h6_a_documented_chat_is_answered(documented: Served, name: str) -> None:
    status, reply = curl(documented, name)
    assert status == 200
    (message,) = reply["output"]
    assert (message["type"], bool(message["content"])) == ("message", True)
    assert reply["stats"].keys() >= STATS
    assert reply["stats"]["tokens_per_second"] > 0
    assert reply["stats"]["total_output_tokens"] > 0
    assert ("response_id" in reply) is (name != "chat_not_stored")


@needs_curl
def test_h6_the_documented_picture_is_seen(documented: Served) -> None:
    asked = {"Describe this image in two sentences": "What color is the image?"}  # which the demo model knows
    status, reply = curl(documented, "chat_with_image", **asked)
    assert (status, reply["model_instance_id"]) == (200, "qwen/qwen3-vl-4b")
    assert reply["output"] == [{"type": "message", "content": "The image is red."}]


@needs_curl
def test_h6_a_documented_chat_goes_on(documented: Served) -> None:
    _, first = curl(documented, "chat")
    status, second = curl(documented, "chat_continued", **{"resp_abc123xyz...": first["response_id"]})
    assert status == 200
    assert second["stats"]["input_tokens"] > first["stats"]["input_tokens"] + first["stats"]["total_output_tokens"]
    status, refused = curl(documented, "chat_continued")
    assert (status, refused["error"]["param"]) == (400, "previous_response_id")


@needs_curl
def test_tools_that_the_server_would_call_are_refused_by_their_fields_name(documented: Served) -> None:
    status, refused = curl(documented, "chat_with_integrations")
    assert (status, refused["error"]["type"], refused["error"]["param"]) == (501, "not_implemented", "integrations")


@needs_curl
def test_h6_the_documented_life_of_a_model(documented: Served) -> None:
    def loaded() -> list[str]:
        status, listed = curl(documented, "models")
        assert status == 200
        row = next(row for row in listed["models"] if row["key"] == "openai/gpt-oss-20b")
        return [instance["id"] for instance in row["loaded_instances"]]

    status, reply = curl(documented, "load")
    assert (status, reply["status"], reply["instance_id"]) == (200, "loaded", "openai/gpt-oss-20b")
    assert reply["load_config"]["context_length"] == 4096  # the demo model has no more
    assert loaded() == ["openai/gpt-oss-20b"]
    assert curl(documented, "unload") == (200, {"instance_id": "openai/gpt-oss-20b"})
    assert loaded() == []
    assert curl(documented, "download") == (200, {"status": "already_downloaded"})
    status, refused = curl(documented, "download_status")
    assert (status, refused["error"]["type"]) == (404, "job_not_found")


@needs_curl
def test_h6_the_documented_older_routes(documented: Served) -> None:
    status, listed = curl(documented, "v0_models")
    assert status == 200
    assert {row["id"] for row in listed["data"]} >= {*CHATS, VECTORS}
    status, row = curl(documented, "v0_model")
    assert (status, row["id"], row["type"]) == (200, "qwen2-vl-7b-instruct", "vlm")
    for name, stops in (
        ("v0_chat", {"eosFound"}),
        ("v0_completion", {"eosFound", "stopStringFound", "maxPredictedTokensReached"}),
    ):
        status, reply = curl(documented, name)
        assert status == 200
        assert reply["stats"]["stop_reason"] in stops
        assert reply["stats"]["generation_time"] > 0
        assert reply["model_info"] == {"arch": "llama", "quant": "Q8_0", "format": "gguf", "context_length": 4096}
        assert reply["runtime"].keys() == {"name", "version", "supported_formats"}
    status, reply = curl(documented, "v0_embeddings")
    assert (status, len(reply["data"]), reply["model"]) == (200, 1, VECTORS)


def test_without_the_token_nothing_is_answered(documented: Served) -> None:
    reply = httpx.get(f"{documented.url}/api/v1/models")
    assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    assert reply.json()["error"]["type"] == "invalid_request"


# Every way to a model


@pytest.fixture(scope="module")
def gateways() -> Iterator[tuple[str, str]]:
    with four_ways(INSIDE.replace("listeners: [{port: 0}]", SPEAKS)) as (front, behind):
        yield front.url, behind.url


@pytest.fixture(scope="module")
def ways(gateways: tuple[str, str]) -> str:
    return gateways[0]


@pytest.mark.parametrize("model", WAYS)
def test_h6_a_chat_streams_and_goes_on_by_every_way(ways: str, model: str) -> None:
    fields = {"model": model, "temperature": 0, "max_output_tokens": 60}
    streamed = httpx.post(f"{ways}/api/v1/chat", json={**fields, "input": ASK, "stream": True}, timeout=60)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    _, first = told(streamed.content)
    assert first["output"] == [{"type": "message", "content": PARIS}]
    assert first["stats"]["input_tokens"] > 0
    assert first["stats"]["total_output_tokens"] > 3
    assert first["stats"]["tokens_per_second"] > 0
    again = {**fields, "input": "What is 7 + 8?", "previous_response_id": first["response_id"]}
    whole = httpx.post(f"{ways}/api/v1/chat", json=again, timeout=60).json()
    assert "15" in whole["output"][0]["content"]
    assert whole["stats"]["input_tokens"] > first["stats"]["input_tokens"]
    assert whole["model_instance_id"] == model


@pytest.mark.parametrize("model", WAYS)
def test_h6_thoughts_are_told_apart_by_every_way(ways: str, model: str) -> None:
    fields = {"model": model, "temperature": 0, "input": "What is 7 + 8?", "reasoning": "on", "stream": True}
    found, result = told(httpx.post(f"{ways}/api/v1/chat", json=fields, timeout=60).content)
    assert [item["type"] for item in result["output"]] == ["reasoning", "message"]
    assert any(record["type"] == "reasoning.delta" for record in found)


@pytest.mark.parametrize("model", WAYS)
def test_h6_the_older_chat_has_its_figures_by_every_way(ways: str, model: str) -> None:
    fields = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": ASK}], "stream": True}
    body = httpx.post(f"{ways}/api/v0/chat/completions", json=fields, timeout=60).text
    *chunks, done = (frame.removeprefix("data: ") for frame in body.removesuffix("\n\n").split("\n\n"))
    last = json.loads(chunks[-1])
    assert done == "[DONE]"
    assert (last["choices"][0]["finish_reason"], last["stats"]["stop_reason"]) == ("stop", "eosFound")
    assert last["stats"]["tokens_per_second"] > 0
    assert "".join(json.loads(chunk)["choices"][0]["delta"].get("content") or "" for chunk in chunks) == PARIS


@pytest.mark.parametrize("model", EMBED_WAYS)
def test_h6_the_older_embeddings_by_every_way(ways: str, model: str) -> None:
    reply = httpx.post(f"{ways}/api/v0/embeddings", json={"model": model, "input": ["a", "b"]}, timeout=60).json()
    assert len(reply["data"]) == 2


def test_h6_both_halves_of_the_dialect_know_each_other(gateways: tuple[str, str]) -> None:
    """A gateway whose LM Studio is another gateway: lists, loads, chats and unloads go through both."""
    _, behind = gateways
    config = f"""
{SPEAKS}
backends:
  studio: {{type: lmstudio, url: "{behind}"}}
models:
  - {{id: pip, backend: studio, name: pip}}
"""

    def instances(url: str) -> list[str]:
        rows = httpx.get(f"{url}/api/v1/models").json()["models"]
        return [one["id"] for row in rows if row["key"] == "pip" for one in row["loaded_instances"]]

    with serving(config) as gateway:
        httpx.post(f"{behind}/api/v1/models/unload", json={"instance_id": "pip"})
        assert instances(gateway.url) == []
        loaded = httpx.post(f"{gateway.url}/api/v1/models/load", json={"model": "pip"}, timeout=60).json()
        assert (loaded["status"], instances(gateway.url), instances(behind)) == ("loaded", ["pip"], ["pip"])
        asked = {"model": "pip", "input": ASK, "temperature": 0, "stream": True}
        _, result = told(httpx.post(f"{gateway.url}/api/v1/chat", json=asked, timeout=60).content)
        assert result["output"] == [{"type": "message", "content": PARIS}]
        rows = [httpx.get(f"{url}/api/v0/models/pip").json() for url in (gateway.url, behind)]
        assert rows[0].keys() == rows[1].keys()
        assert (rows[0]["type"], rows[0]["quantization"]) == (rows[1]["type"], rows[1]["quantization"])
        httpx.post(f"{gateway.url}/api/v1/models/unload", json={"instance_id": "pip"}, timeout=60)
        assert instances(gateway.url) == []
        assert instances(behind) == []


# Downloads


def test_h6_a_model_is_downloaded_in_the_background_and_answers(tmp_path: Path) -> None:
    """A repository's link, as the documentation has it; the hub is a stand-in."""
    with registry() as hub:
        hub.hub("acme/pip-GGUF", {"pip.Q8_0.gguf": (ROOT / "models" / "pip.gguf").read_bytes()})
        config = f"""
{SPEAKS}
backends:
  local:
    type: llama_cpp
    models_dir: {tmp_path}
    store: {tmp_path}/store
    threads: 1
    pull: {{hosts: [{hub.host}, {hub.cdn}, hf.co]}}
"""
        with serving(config, environ={"HF_ENDPOINT": hub.url}) as gateway:
            asked = {"model": "https://huggingface.co/acme/pip-GGUF", "quantization": "Q8_0"}
            job = httpx.post(f"{gateway.url}/api/v1/models/download", json=asked, timeout=30).json()
            told_of: dict[str, Any] = job
            while told_of["status"] == "downloading":
                told_of = httpx.get(f"{gateway.url}/api/v1/models/download/status/{job['job_id']}").json()
            assert told_of["status"] == "completed", told_of
            assert told_of["downloaded_bytes"] == told_of["total_size_bytes"] > 1_000_000
            (row,) = httpx.get(f"{gateway.url}/api/v1/models").json()["models"]
            asked_again = httpx.post(f"{gateway.url}/api/v1/models/download", json=asked).json()
            assert asked_again == {"status": "already_downloaded"}
            answer = httpx.post(
                f"{gateway.url}/api/v1/chat",
                json={"model": row["key"], "input": ASK, "temperature": 0, "reasoning": "off"},
            )
            assert answer.json()["output"][0]["content"] == PARIS
            asked = {"model": "https://huggingface.co/acme/nothing"}
            missing = httpx.post(f"{gateway.url}/api/v1/models/download", json=asked)
            assert (missing.status_code, missing.json()["error"]["type"]) == (404, "model_not_found")
