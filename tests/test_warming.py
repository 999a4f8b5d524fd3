"""Loads and unloads of a model behind another Ollama: that server is told, as it is where the memory is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest

from tests.serving import Served, serving
from tests.ways import three_ways

INSIDE = """
listeners: [{port: 0}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1, context: 1024}
models:
  - {id: pip, backend: local, file: pip.gguf}
  - {id: embed, backend: local, file: embed.gguf}
"""


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Served, Served]]:
    with three_ways(INSIDE) as (near, far):
        yield near, far


def rows(gateway: Served) -> dict[str, Any]:
    return {row["name"]: row for row in httpx.get(f"{gateway.url}/api/ps").json()["models"]}


@pytest.mark.parametrize("name", ["pip", "embed"])
def test_a_model_behind_is_loaded_and_unloaded_where_it_is(both: tuple[Served, Served], name: str) -> None:
    near, far = both
    client = ollama.Client(near.url)
    client.list()
    loaded = client.generate(f"{name}-ollama", keep_alive=-1, options={"num_ctx": 2048})
    assert loaded.done_reason == "load"
    row = rows(far)[f"{name}:latest"]
    assert row["expires_at"] > "2300"
    assert row["context_length"] == (2048 if name == "pip" else 512)
    behind = rows(near)[f"{name}-ollama:latest"]  # whose memory that server's is
    assert (behind["context_length"], behind["expires_at"]) == (row["context_length"], row["expires_at"])
    unloaded = client.generate(f"{name}-ollama", keep_alive=0)
    assert unloaded.done_reason == "unload"
    assert rows(far) == {}
    assert rows(near) == {}


def test_what_that_server_says_of_a_load_is_told(both: tuple[Served, Served]) -> None:
    far = both[1]
    config = f"""
listeners: [{{port: 0}}]
backends:
  far: {{type: ollama, url: "{far.url}"}}
  away: {{type: ollama, url: "http://127.0.0.1:1"}}
models:
  - {{id: gone, backend: far, name: nothing}}
  - {{id: away, backend: away, name: pip}}
"""
    with serving(config) as near:
        for keep_alive in (0, 60):
            asked = {"model": "gone", "keep_alive": keep_alive}
            answer = httpx.post(f"{near.url}/api/generate", json=asked)
            assert answer.status_code == 404
            assert "not found" in answer.json()["error"]
            assert httpx.post(f"{near.url}/api/chat", json={**asked, "model": "away"}).status_code == 502
