"""Backends behind HTTP when all goes well: answers, catalogs, queues, clients that leave, and their settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.ollama import base_path as ollama_path
from backends.openai import base_path as openai_path
from backends.upstream import read_url
from canonical.errors import ModelNotFound
from canonical.events import Finished, Started, Usage
from canonical.requests import Embed, Generate, Prompt
from tests.calling import SOON, until
from tests.faulty import Peer, Script, always, chunk, faulty, once, reply, then_silent
from tests.upstreams import ASK, KEY, OPENAI, WHOLE, Dialect, answer, backend, both, every, sse, stream, words


@both
def test_m5_an_answer_streamed_and_whole(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            streamed = json.loads(request.body)["stream"]
            await peer.send(stream(dialect) if streamed else reply(200, dialect.whole))

    async def scenario() -> None:
        async with faulty(script) as fake:
            source = backend(dialect, fake.port)
            for request in (ASK, WHOLE, ASK):
                events = await answer(source, request)
                assert events[0] == Started("m")
                assert words(events) == "Hello"
                end = events[-1]
                assert isinstance(end, Finished)
                assert (end.reason, end.usage) == ("stop", Usage(3, 2))
            assert fake.connections == 1
            first = fake.requests[0]
            assert first.path == ("/v1/chat/completions" if dialect is OPENAI else "/api/chat")
            assert first.headers["authorization"] == f"Bearer {KEY}"
            assert first.headers["content-type"] == "application/json"
            await source.close()

    asyncio.run(scenario())


@both
def test_m5_a_prompt_takes_the_other_route(dialect: Dialect) -> None:
    request = Generate(model="m", prompt=Prompt(text="Once"))
    openai = sse(b'{"choices":[{"index":0,"text":" upon","finish_reason":"stop"}]}', b"[DONE]")
    ollama = (b'{"model":"m","response":" upon","done":true}\n',)

    async def scenario() -> None:
        async with faulty(once(stream(dialect, pieces=openai if dialect is OPENAI else ollama))) as fake:
            source = backend(dialect, fake.port, api_key="")
            assert words(await answer(source, request)) == " upon"
            assert fake.requests[0].path == ("/v1/completions" if dialect is OPENAI else "/api/generate")
            assert "authorization" not in fake.requests[0].headers
            await source.close()

    asyncio.run(scenario())


@every
def test_the_end_is_told_before_the_connection_is_free_and_it_is_kept(dialect: Dialect) -> None:
    async def scenario() -> None:
        step = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(dialect.head, *map(chunk, dialect.pieces))
                await step.wait()
                await peer.send(chunk(b""))

        async with faulty(script) as fake:
            source = backend(dialect, fake.port)
            assert words(await answer(source)) == "Hello"  # while the last chunk is still held back
            step.set()
            await until(lambda: bool(source._upstream._data._idle))
            assert words(await answer(source)) == "Hello"
            assert fake.connections == 1
            await source.close()

    asyncio.run(scenario())


@every
def test_a_stream_is_complete_with_its_finish_reason(dialect: Dialect) -> None:
    """What a backend does after that is no failure: it hangs up, it resets, it says [DONE] or it does not."""
    upto = 3
    text = b"".join(map(chunk, dialect.pieces[:upto]))

    async def reset(peer: Peer) -> None:
        await peer.request()
        await peer.send(dialect.head + text)
        peer.reset()

    async def scenario(script: Script) -> None:
        async with faulty(script) as fake:
            source = backend(dialect, fake.port, timeouts={"idle": SOON})
            events = await answer(source)
            assert words(events) == "Hello"
            await source.close()

    for script in (once(dialect.head + text), once(dialect.head + text + chunk(b"")), then_silent(dialect.head + text)):
        asyncio.run(scenario(script))
    asyncio.run(scenario(reset))


@every
def test_a_whole_answer_in_place_of_a_stream(dialect: Dialect) -> None:
    async def scenario() -> None:
        async with faulty(once(reply(200, dialect.whole))) as fake:
            source = backend(dialect, fake.port)
            assert words(await answer(source)) == "Hello"
            await source.close()

    asyncio.run(scenario())


@both
def test_embeddings(dialect: Dialect) -> None:
    openai = (
        b'{"object":"list","data":[{"index":0,"embedding":[0.6,0.8]}],"usage":{"prompt_tokens":1,"total_tokens":1}}'
    )
    ollama = b'{"model":"m","embeddings":[[0.6,0.8]],"prompt_eval_count":1}'

    async def scenario() -> None:
        async with faulty(once(reply(200, openai if dialect is OPENAI else ollama))) as fake:
            source = backend(dialect, fake.port)
            model = await source.open("m")
            found = await model.embed(Embed(model="m", inputs=("hi",)))
            assert found.vectors == ([0.6, 0.8],)
            assert fake.requests[0].path == ("/v1/embeddings" if dialect is OPENAI else "/api/embed")
            await source.close()

    asyncio.run(scenario())


@both
def test_the_catalog(dialect: Dialect) -> None:
    openai = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"me"}]}'
    ollama = b'{"models":[{"name":"m","model":"m","capabilities":["completion"]}]}'

    async def scenario() -> None:
        async with faulty(always(reply(200, openai if dialect is OPENAI else ollama))) as fake:
            source = backend(dialect, fake.port)
            rows = await source.models()
            assert [(row.id, row.backend) for row in rows] == [("m", "up")]
            assert (await source.open("m")).info == rows[0]
            assert (await source.open("unlisted")).info.id == "unlisted"
            assert fake.requests[0].path == ("/v1/models" if dialect is OPENAI else "/api/tags")
            fixed = backend(dialect, fake.port, models=["a", "b"])
            assert [row.id for row in await fixed.models()] == ["a", "b"]
            assert len(fake.requests) == 1
            await source.close()

    asyncio.run(scenario())


@both
def test_details_of_a_model_that_is_not_there(dialect: Dialect) -> None:
    body = b'{"object":"list","data":[]}' if dialect is OPENAI else b'{"error":"model \'m\' not found"}'

    async def scenario() -> None:
        async with faulty(once(reply(200 if dialect is OPENAI else 404, body))) as fake:
            source = backend(dialect, fake.port)
            with pytest.raises(ModelNotFound, match="model 'm' not found"):
                await source.details("m")
            await source.close()

    asyncio.run(scenario())


# Leaving.


@every
@pytest.mark.parametrize("when", ["waiting", "streaming"])
def test_a_client_that_leaves_closes_the_backends_connection(dialect: Dialect, when: str) -> None:
    async def scenario() -> None:
        async with faulty(then_silent(*([dialect.head + chunk(dialect.pieces[0])] * (when == "streaming")))) as fake:
            source = backend(dialect, fake.port)
            generation = (await source.open("m")).generate(ASK)
            if when == "streaming":
                assert await anext(generation)
                await generation.aclose()
            else:
                first = asyncio.create_task(anext(generation))
                await until(lambda: bool(fake.requests))
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
            await fake.left.wait()
            await source.close()

    asyncio.run(scenario())


@every
def test_max_running_queues_generations_and_not_the_catalog(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.method == "GET":
                await peer.send(reply(200, b'{"object":"list","data":[],"models":[]}'))
            else:
                await step.wait()
                await peer.send(stream(dialect))

    async def scenario() -> None:
        async with faulty(script) as fake:
            source = backend(dialect, fake.port, max_running=1)
            tasks = [asyncio.create_task(answer(source)) for _ in range(3)]
            assert await source.models() == []
            assert [request.method for request in fake.requests if request.method == "POST"] == ["POST"]
            step.set()
            for task in tasks:
                assert words(await task) == "Hello"
            assert fake.connections == 2
            await source.close()

    step = asyncio.Event()
    asyncio.run(scenario())


# Settings.


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1"),
        ("/v1", "/v1"),
        ("/openai", "/openai/v1"),
        ("/openai/v1", "/openai/v1"),
        ("/v1beta/openai", "/v1beta/openai"),
        ("/api/v3", "/api/v3"),
    ],
)
def test_an_openai_url_has_one_version(given: str, path: str) -> None:
    assert openai_path(given) == path


def test_an_ollama_url_may_end_with_api() -> None:
    assert [ollama_path(path) for path in ("", "/api", "/ollama", "/ollama/api")] == ["", "", "/ollama", "/ollama"]


def test_urls_are_read() -> None:
    address, path = read_url("https://Example.com/v1/")
    assert (address.host, address.port, address.tls, address.authority, path) == (
        "example.com", 443, True, "example.com", "/v1",
    )  # fmt: skip
    assert read_url("http://[::1]:8080")[0].authority == "[::1]:8080"


@every
@pytest.mark.parametrize(
    "bad",
    [
        {"url": "ftp://h"},
        {"url": "h:80"},
        {"url": "http://"},
        {"url": "http://h:99999"},
        {"url": "http://user:hunter2@h"},
        {"url": "http://h/?key=hunter2"},
        {"url": "http://h/ö"},
        {"url": "http://h/a b"},
        {"url": "http://[h"},
        {"api_key": "hunter2\r\nX: y"},
        {"api_key": "hunter2ö"},
        {"max_running": -1},
        {"timeouts": {"idle": 0}},
        {"timeouts": {"idel": 1}},
        {"ulr": "x"},
    ],
)
def test_a_wrong_setting_is_refused_without_its_secret(dialect: Dialect, bad: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        backend(dialect, 80, **bad)
    assert "hunter2" not in str(caught.value)


@every
def test_a_certificate_file_that_is_not_there_is_refused(dialect: Dialect, tmp_path: Path) -> None:
    settings = msgspec.convert({"url": "https://h", "ca_file": "ca.pem"}, dialect.backend.Settings)
    with pytest.raises(ValueError, match=r"ca_file 'ca.pem' is no file"):
        dialect.backend("up", settings, tmp_path)  # type: ignore[arg-type]  # its own
    (tmp_path / "ca.pem").touch()
    dialect.backend("up", settings, tmp_path)  # type: ignore[arg-type]  # its own


@every
def test_settings_do_not_show_the_key(dialect: Dialect) -> None:
    settings = msgspec.convert({"url": "http://h", "api_key": KEY}, dialect.backend.Settings)
    assert KEY not in repr(settings)
