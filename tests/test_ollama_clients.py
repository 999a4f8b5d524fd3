"""The whole surface of the official Ollama clients against the real gateway, and against one behind another."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama import AsyncClient, Client, ResponseError

from tests.serving import ROOT, serving
from tests.shelf import FAR, FAR_DIGEST

B = """
listeners: [{port: 0}]
backends:
  shelf: {type: "tests.shelf:Shelf"}
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
models:
  - {id: pip, backend: local, file: pip.gguf, thinking: off}
  - {id: embed, backend: local, file: embed.gguf}
library: shelf
"""
A = """
listeners: [{port: 0}]
backends:
  other: {type: ollama, url: "URL"}
"""
CHAT = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with serving(B) as b, serving(A.replace("URL", b.url)) as a:
        yield {"here": b.url, "behind": a.url}


both = pytest.mark.parametrize("where", ["here", "behind"])


@both
def test_the_python_client_manages_models(urls, where, tmp_path):
    client = Client(urls[where])
    mine = f"mine-{where}"
    made = client.create(
        mine, from_="have", system="Be brief.", parameters={"stop": ["x"]}, license=["MIT"], stream=False
    )
    assert made.status == "success"
    steps = [step.status for step in client.create(mine, from_="have", system="Be kind.", stream=True)]
    assert steps[-1] == "success"
    assert len(steps) > 1
    shown = client.show(mine)
    assert "Be kind." in (shown.modelfile or "")
    assert shown.modelinfo is not None
    assert "completion" in (shown.capabilities or ())
    assert client.copy(mine, "gpt-4").status == "success"
    rows = {row.model: row for row in client.list().models}
    assert {"pip:latest", f"{mine}:latest", "gpt-4:latest"} <= set(rows)
    assert all(row.digest and len(row.digest) == 64 and row.modified_at and row.details for row in rows.values())
    assert rows["gpt-4:latest"].digest == rows[f"{mine}:latest"].digest
    assert client.chat("gpt-4", CHAT).message.content == "Hello"
    assert client.delete("gpt-4").status == client.delete(mine).status == "success"
    assert "gpt-4:latest" not in {row.model for row in client.list().models}

    file = tmp_path / "weights.gguf"
    file.write_bytes(where.encode() * 9)
    digest = client.create_blob(file)
    assert digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert client.create_blob(file) == digest, "the second time it is there already"
    assert client.create(mine, files={"weights.gguf": digest}).status == "success"
    assert client.delete(mine).status == "success"


@both
def test_the_python_client_pulls_and_pushes(urls, where):
    client = Client(urls[where])
    steps = list(client.pull("far", stream=True))
    assert (steps[0].status, steps[-1].status) == ("pulling manifest", "success")
    sizes = [(step.total, step.completed) for step in steps if step.digest == FAR_DIGEST]
    assert sizes[-1] == (len(FAR), len(FAR))
    assert client.chat("far", CHAT).message.content == "Hello"
    assert client.pull("far").status == "success"
    assert client.pull("pip").status == "success"
    assert [step.status for step in client.push("far", stream=True)][-1] == "success"
    assert client.push("far").status == "success"
    client.delete("far")
    with pytest.raises(ResponseError, match="file does not exist"):
        list(client.pull("nobody/has-it", stream=True))
    with pytest.raises(ResponseError) as caught:
        client.pull("nobody/has-it")
    assert (caught.value.status_code, caught.value.error) == (500, "pull model manifest: file does not exist")


@both
def test_the_python_client_uses_models(urls, where):
    client = Client(urls[where])
    answer = client.chat("pip", CHAT, options=GREEDY)
    assert "Paris" in (answer.message.content or "")
    pieces = [part.message.content or "" for part in client.chat("pip", CHAT, options=GREEDY, stream=True)]
    assert "".join(pieces) == answer.message.content
    assert "Paris" in client.generate("pip", CHAT[0]["content"], options=GREEDY).response
    assert client.generate("pip", "").done_reason == "load"
    assert len(client.embed("embed", ["a text", "another"]).embeddings) == 2
    assert len(client.embeddings("embed", "a text").embedding) > 8
    assert {row.model for row in client.ps().models} >= ({"pip:latest", "embed:latest"} if where == "here" else set())
    assert client.show("pip").capabilities


@both
def test_errors_reach_the_python_client_in_ollamas_words(urls, where):
    client = Client(urls[where])
    for ask, status, words in (
        (lambda: client.show("none"), 404, "not found"),
        (lambda: client.chat("none", CHAT), 404, "not found"),
        (lambda: client.copy("none", "b"), 404, "not found"),
        (lambda: client.delete("none"), 404, "not found"),
        (lambda: client.create("x", from_="none", stream=False), 500, "file does not exist"),
        (lambda: client.create("a b", from_="have", stream=False), 400, "invalid model name"),
        (lambda: client.create("x", files={"x": "sha256:" + "0" * 64}, stream=False), 400, "is not there"),
        (lambda: client.delete("file"), 409, "a file of the models folder"),
    ):
        with pytest.raises(ResponseError, match=words) as caught:
            ask()
        # a server in between sees a stream that has begun, and no status
        assert caught.value.status_code in ({status} if where == "here" else {status, 500, 502})


@both
def test_the_asynchronous_client_does_the_same(urls, where, tmp_path):
    async def whole() -> None:
        client = AsyncClient(urls[where])
        name = f"async-{where}"
        steps = [step.status async for step in await client.pull("further", stream=True)]
        assert steps[-1] == "success"
        assert (await client.pull("further")).status == "success"
        # More than any other body may have: files have no such limit, and nobody holds them whole.
        file = tmp_path / "large.gguf"
        file.write_bytes(where.encode() * (33 * 1024 * 1024 // len(where)))
        digest = await client.create_blob(file)
        assert await client.create_blob(file) == digest
        assert (await client.create(name, files={"large.gguf": digest})).status == "success"
        assert [step.status async for step in await client.create(name, from_="further", stream=True)][-1] == "success"
        assert (await client.copy(name, "copied")).status == "success"
        assert (await client.show("copied")).details is not None
        assert "copied:latest" in [row.model for row in (await client.list()).models]
        assert (await client.chat("copied", CHAT)).message.content == "Hello"
        assert (await client.push("copied")).status == "success"
        for each in (name, "copied", "further"):
            assert (await client.delete(each)).status == "success"
        assert len((await client.embed("embed", "x")).embeddings) == 1
        await client.ps()

    asyncio.run(whole())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
@both
def test_the_javascript_client_does_the_same(urls, where):
    if not Path(ROOT / "tests/js/node_modules/ollama").is_dir():
        pytest.skip("the JavaScript clients are not installed")
    run = subprocess.run(
        ["node", "tests/js/manages.mjs", urls[where]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told == {
        "created": "success",
        "createdSteps": "success",
        "pulled": "success",
        "pulledSteps": ["pulling manifest", "success"],
        "pulledBytes": [len(FAR), len(FAR)],
        "pushed": "success",
        "pushedSteps": "success",
        "copied": "success",
        "system": "Be brief.",
        "info": True,
        "listed": True,
        "chat": "Hello",
        "generate": "Hello",
        "stream": "Hello",
        "vectors": 2,
        "vector": True,
        "running": True,
        "deleted": "success",
        "gone": 404,
        "missing": "pull model manifest: file does not exist",
        "missingStatus": 500,
        "version": True,
    }
