"""The whole surface of the official Ollama clients: the real gateway, store and models, a registry, and a gateway behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama import AsyncClient, Client, ResponseError

from canonical.digests import digest_of
from tests.registry import Fault, Site, registry
from tests.serving import ROOT, serving

B = """
listeners: [{port: 0}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1, slots: 2, pull: {hosts: [HOSTS]}}
models:
  - {id: pip, backend: local, file: pip.gguf, thinking: off}
  - {id: embed, backend: local, file: embed.gguf}
"""
A = """
listeners: [{port: 0}]
backends:
  other: {type: ollama, url: "URL", pull_hosts: [registry.ollama.ai, HOSTS]}
"""
CHAT = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}
PIP = (ROOT / "models/pip.gguf").read_bytes()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with registry() as site:
        site.publish("acme/tiny", model=PIP, params=b'{"temperature":0}', system=b"You are Tiny.")
        site.publish("acme/second", model=PIP)
        yield site


@pytest.fixture(scope="module")
def urls(site: Site) -> Iterator[dict[str, str]]:
    hosts = ", ".join(f'"{host}"' for host in site.hosts)
    with serving(B.replace("HOSTS", hosts)) as b, serving(A.replace("HOSTS", hosts).replace("URL", b.url)) as a:
        yield {"here": b.url, "behind": a.url}


both = pytest.mark.parametrize("where", ["here", "behind"])


@both
def test_the_python_client_manages_models(urls, where, tmp_path):
    client = Client(urls[where])
    mine, alias = f"mine-{where}", "gpt-4"
    made = client.create(
        mine, from_="pip", system="Be brief.", parameters={"stop": ["x"]}, license=["MIT"], stream=False
    )
    assert made.status == "success"
    steps = [
        step.status for step in client.create(mine, from_="pip", system="Be kind.", parameters=GREEDY, stream=True)
    ]
    assert steps[-1] == "success"
    assert len(steps) > 1
    shown = client.show(mine)
    assert "SYSTEM Be kind." in (shown.modelfile or "")
    assert shown.parameters == "temperature                    0"
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "completion" in (shown.capabilities or ())
    assert client.copy(mine, alias).status == "success"
    rows = {row.model: row for row in client.list().models}
    assert {"pip:latest", f"{mine}:latest", f"{alias}:latest"} <= set(rows)
    assert all(row.digest and len(row.digest) == 64 and row.modified_at and row.details for row in rows.values())
    assert rows[f"{alias}:latest"].digest == rows[f"{mine}:latest"].digest
    assert "Paris" in (client.chat(alias, CHAT).message.content or "")
    assert client.delete(alias).status == client.delete(mine).status == "success"
    assert f"{alias}:latest" not in {row.model for row in client.list().models}

    file = tmp_path / "weights.gguf"
    file.write_bytes(PIP)
    digest = client.create_blob(file)
    assert digest == digest_of(PIP)
    assert client.create_blob(file) == digest, "the second time it is there already"
    assert client.create(mine, files={"weights.gguf": digest}, stream=False).status == "success"
    assert "Paris" in (client.chat(mine, CHAT, options=GREEDY).message.content or "")
    assert client.delete(mine).status == "success"


@both
def test_the_python_client_pulls_and_pushes(urls, where, site):
    client = Client(urls[where])
    name, copy = f"{site.host}/acme/tiny", f"{site.host}/acme/{where}"
    steps = list(client.pull(name, insecure=True, stream=True))
    assert (steps[0].status, steps[-1].status) == ("pulling manifest", "success")
    whole = digest_of(PIP)
    assert [(step.total, step.completed) for step in steps if step.digest == whole][-1] == (len(PIP), len(PIP))
    assert "Paris" in (client.chat(name, CHAT).message.content or ""), "the very next request finds it"
    assert client.show(name).template
    assert client.pull(name, insecure=True).status == "success"
    assert client.pull("pip").status == "success", "what config.yaml serves is there"
    client.copy(name, copy)
    assert [step.status for step in client.push(copy, insecure=True, stream=True)][-1] == "success"
    assert client.push(copy, insecure=True).status == "success"
    assert any(where in str(key) for key in site.manifests)
    client.delete(name)
    client.delete(copy)
    missing = f"{site.host}/nobody/has-it"
    with pytest.raises(ResponseError, match="file does not exist"):
        list(client.pull(missing, insecure=True, stream=True))
    with pytest.raises(ResponseError) as caught:
        client.pull(missing, insecure=True)
    assert (caught.value.status_code, caught.value.error) == (500, "pull model manifest: file does not exist")
    with pytest.raises(ResponseError) as caught:
        client.pull("evil.example/a/b")
    assert "is not listed" in caught.value.error


def test_a_pull_pauses_when_its_last_client_leaves_and_goes_on_from_there(urls, site):
    whole = PIP + bytes(4 * 1024 * 1024)
    digest = digest_of(whole)
    site.publish("acme/slow", model=whole)
    stalls = Fault("stall", 2_500_000)
    site.faults.append(stalls)
    name = f"{site.host}/acme/slow"
    clients = [Client(urls["here"]), Client(urls["here"])]
    pulls = [client.pull(name, insecure=True, stream=True) for client in clients]
    for pull in pulls:
        assert next(step for step in pull if step.digest == digest and step.completed)
    assert len(site.requests(path="acme/slow/manifests")) == 1, "two clients, one pull"
    for pull in pulls:
        pull.close()
    site.faults.remove(stalls)
    steps = list(Client(urls["here"]).pull(name, insecure=True, stream=True))
    assert steps[-1].status == "success"
    sent = site.served(digest)
    twice = sum(end - start for start, end in sent) - len(whole)
    assert twice < 1024 * 1024, "nothing is fetched twice but the last block"
    Client(urls["here"]).delete(name)


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
        (lambda: client.create("x", from_="evil.example/a/b", stream=False), 400, "is not listed"),
        (lambda: client.create("a b", from_="pip", stream=False), 400, "invalid model name"),
        (lambda: client.create("x", files={"x.gguf": "sha256:" + "0" * 64}, stream=False), 400, "blob|digest"),
        (lambda: client.delete("pip"), 409, "comes from config.yaml"),
    ):
        with pytest.raises(ResponseError, match=words) as caught:
            ask()
        # a server in between sees a stream that has begun, and no status
        assert caught.value.status_code == status or (where == "behind" and caught.value.status_code >= 500)


@both
def test_the_asynchronous_client_does_the_same(urls, where, site, tmp_path):
    async def whole() -> None:
        client = AsyncClient(urls[where])
        name, far = f"async-{where}", f"{site.host}/acme/second"
        steps = [step.status async for step in await client.pull(far, insecure=True, stream=True)]
        assert steps[-1] == "success"
        assert (await client.pull(far, insecure=True)).status == "success"
        # More than any other body may have: files have no such limit, and nobody holds them whole.
        file = tmp_path / "large.gguf"
        file.write_bytes(PIP + where.encode() * (33 * 1024 * 1024 // len(where)))
        digest = await client.create_blob(file)
        assert await client.create_blob(file) == digest
        assert (await client.create(name, files={"large.gguf": digest}, stream=False)).status == "success"
        assert [step.status async for step in await client.create(name, from_=far, stream=True)][-1] == "success"
        assert (await client.copy(name, "copied")).status == "success"
        assert (await client.show("copied")).details is not None
        assert "copied:latest" in [row.model for row in (await client.list()).models]
        assert "Paris" in ((await client.chat("copied", CHAT, options=GREEDY)).message.content or "")
        for each in (name, "copied", far):
            assert (await client.delete(each)).status == "success"
        assert len((await client.embed("embed", "x")).embeddings) == 1
        await client.ps()

    asyncio.run(whole())


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")
@both
def test_the_javascript_client_does_the_same(urls, where, site):
    if not Path(ROOT / "tests/js/node_modules/ollama").is_dir():
        pytest.skip("the JavaScript clients are not installed")
    run = subprocess.run(
        ["node", "tests/js/manages.mjs", urls[where], site.host],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answer = "The capital of France is Paris."
    assert json.loads(run.stdout) == {
        "created": "success",
        "createdSteps": "success",
        "pulled": "success",
        "pulledSteps": ["pulling manifest", "success"],
        "pulledBytes": [len(PIP), len(PIP)],
        "pushed": "success",
        "pushedSteps": "success",
        "copied": "success",
        "system": "Be brief.",
        "info": True,
        "listed": True,
        "chat": answer,
        "generate": answer,
        "stream": answer,
        "vectors": 2,
        "vector": True,
        "running": True,
        "deleted": "success",
        "gone": 404,
        "missing": "pull model manifest: file does not exist",
        "missingStatus": 500,
        "version": True,
    }
