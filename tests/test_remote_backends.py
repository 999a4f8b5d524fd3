"""Backends behind HTTP, against a fake that does what backends do when they fail: the reliability table, row by row."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backends.base import Embeds, Generates
from backends.ollama import OllamaBackend
from backends.ollama import base_path as ollama_path
from backends.openai import OpenAIBackend
from backends.openai import base_path as openai_path
from backends.remote import read_url
from canonical.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from canonical.events import Check, Event, Finished, Started, TextDelta, Usage
from canonical.messages import Message, Text
from canonical.requests import Embed, Generate, Prompt
from tests.calling import SOON, until
from tests.faulty import Peer, Script, always, chunk, chunked_head, endless, faulty, once, reply, then_silent

KEY = "sk-very-secret"


class Dialect(NamedTuple):
    """How one kind of backend words what a test needs."""

    backend: type[OpenAIBackend | OllamaBackend]
    head: bytes
    pieces: tuple[bytes, ...]
    """Two words, then the end with a finish reason."""
    whole: bytes
    kind: str
    record: tuple[bytes, bytes]
    """What stands before and after the JSON of a streamed record."""

    def error(self, message: str, code: str | None = None) -> bytes:
        error: Any = {"message": message, "code": code} if self.backend is OpenAIBackend else message
        return json.dumps({"error": error}).encode()

    def framed(self, body: bytes) -> bytes:
        return self.record[0] + body + self.record[1]


def _sse(*records: bytes) -> tuple[bytes, ...]:
    return tuple(b"data: " + record + b"\n\n" for record in records)


OPENAI = Dialect(
    OpenAIBackend,
    chunked_head("text/event-stream"),
    _sse(
        b'{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}',
        b'{"model":"m","choices":[{"index":0,"delta":{"content":"lo"}}]}',
        b'{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b'{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
        b"[DONE]",
    ),
    b'{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
    "text/event-stream",
    (b"data: ", b"\n\n"),
)
OLLAMA = Dialect(
    OllamaBackend,
    chunked_head("application/x-ndjson"),
    (
        b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n',
        b'{"model":"m","message":{"role":"assistant","content":"lo"},"done":false}\n',
        b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"prompt_eval_count":3,"eval_count":2}\n',
    ),
    b'{"model":"m","message":{"role":"assistant","content":"Hello"},"done":true,"done_reason":"stop",'
    b'"prompt_eval_count":3,"eval_count":2}',
    "application/x-ndjson",
    (b"", b"\n"),
)
both = pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["openai", "ollama"])

ASK = Generate(model="m", messages=(Message("user", (Text("hi"),)),))
WHOLE = msgspec.structs.replace(ASK, stream=False)


def backend(dialect: Dialect, port: int, **settings: Any) -> OpenAIBackend | OllamaBackend:
    values = {"url": f"http://127.0.0.1:{port}", "api_key": KEY, **settings}
    return dialect.backend("up", msgspec.convert(values, dialect.backend.Settings))  # type: ignore[arg-type]  # its own


async def answer(
    source: OpenAIBackend | OllamaBackend, request: Generate = ASK, told: list[Event] | None = None
) -> list[Event]:
    """The checked events of one answer; ``told`` keeps those before a failure."""
    model = await source.open("m")
    assert isinstance(model, Generates)
    assert isinstance(model, Embeds)
    events: list[Event] = [] if told is None else told
    check = Check()
    async for batch in model.generate(request):
        assert batch
        for event in batch:
            check.feed(event)
        events.extend(batch)
    check.finish()
    await model.close()
    return events


def stream(dialect: Dialect, *extra: bytes, pieces: Sequence[bytes] | None = None) -> bytes:
    chosen = dialect.pieces if pieces is None else pieces
    return dialect.head + b"".join(map(chunk, [*chosen, *extra])) + chunk(b"")


def words(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def failing(
    dialect: Dialect, script: Script, *, request: Generate = ASK, leaves: bool = False, **settings: Any
) -> tuple[GatewayError, list[Event]]:
    """The error of one request and what was told before it; with ``leaves`` the backend sees us hang up."""

    async def scenario() -> tuple[GatewayError, list[Event]]:
        told: list[Event] = []
        async with faulty(script) as fake:
            source = backend(dialect, fake.port, **settings)
            with pytest.raises(GatewayError) as caught:
                await answer(source, request, told)
            if leaves:
                await fake.left.wait()
            await source.close()
        assert len(fake.requests) == 1  # nothing is ever tried again
        assert KEY not in f"{caught.value.message} {caught.value.code} {caught.value.param} {caught.value}"
        return caught.value, told

    return asyncio.run(scenario())


# Answers.


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
    openai = _sse(b'{"choices":[{"index":0,"text":" upon","finish_reason":"stop"}]}', b"[DONE]")
    ollama = (b'{"model":"m","response":" upon","done":true}\n',)

    async def scenario() -> None:
        async with faulty(once(stream(dialect, pieces=openai if dialect is OPENAI else ollama))) as fake:
            source = backend(dialect, fake.port, api_key="")
            assert words(await answer(source, request)) == " upon"
            assert fake.requests[0].path == ("/v1/completions" if dialect is OPENAI else "/api/generate")
            assert "authorization" not in fake.requests[0].headers
            await source.close()

    asyncio.run(scenario())


@both
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


@both
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


@both
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


# The table: what the backend does, and what the client gets.


@both
def test_refused_is_502(dialect: Dialect) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            source = backend(dialect, taken.getsockname()[1])
            with pytest.raises(BackendUnavailable, match="backend 'up' cannot be reached") as caught:
                await answer(source)
            assert caught.value.status == 502
            with pytest.raises(BackendUnavailable):
                await source.models()

    asyncio.run(scenario())


@both
def test_silence_is_504(dialect: Dialect) -> None:
    error, told = failing(dialect, then_silent(), timeouts={"first_byte": SOON})
    assert isinstance(error, BackendTimeout)
    assert (error.status, told) == (504, [])


@both
def test_a_stall_is_504_after_what_came(dialect: Dialect) -> None:
    begun = dialect.head + chunk(dialect.pieces[0])
    for timeouts in ({"idle": SOON}, {"total": SOON}):
        error, told = failing(dialect, then_silent(begun), leaves=True, timeouts=timeouts)
        assert isinstance(error, BackendTimeout)
        assert words(told) == "Hel"


CUT = {
    "nothing": lambda _: b"",
    "no http": lambda _: b"hello\r\n\r\n",
    "cut in the head": lambda dialect: dialect.head[:30],
    "closed after a word": lambda dialect: dialect.head + chunk(dialect.pieces[0]),
    "ended without a finish reason": lambda dialect: stream(dialect, pieces=dialect.pieces[:2]),
    "half a record at the end": lambda dialect: stream(
        dialect, pieces=[*dialect.pieces[:2], dialect.pieces[2].rstrip()[:-3]]
    ),
    "[DONE] alone": lambda dialect: stream(dialect, dialect.framed(b"[DONE]"), pieces=dialect.pieces[:2]),
    "bad json": lambda dialect: stream(dialect, dialect.framed(b'{"choices":[')),
    "another shape": lambda dialect: stream(dialect, pieces=[dialect.framed(b'{"choices":7,"message":7}')]),
    "html": lambda _: reply(200, b"<html>proxy</html>", kind="text/html"),
    "bytes that are no UTF-8": lambda dialect: stream(dialect, pieces=[dialect.pieces[0].replace(b"Hel", b"\xff")]),
    "no content": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "an empty stream": lambda dialect: stream(dialect, pieces=[]),
    "compressed": lambda dialect: dialect.head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
    "huge headers": lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
}


@both
@pytest.mark.parametrize("fault", CUT)
def test_a_broken_answer_is_502_and_nothing_is_made_up(dialect: Dialect, fault: str) -> None:
    data = CUT[fault](dialect)
    if fault == "bad json":
        data = data.replace(b"".join(map(chunk, dialect.pieces[2:])), b"")
    error, told = failing(dialect, once(data))
    assert isinstance(error, BackendError)
    assert error.status == 502
    assert not any(isinstance(event, Finished) for event in told)
    assert "Hello".startswith(words(told))


@both
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"choices":[]}', b'{"message":null}', b"<html>", b"\xff", b"Hello"]
)
def test_a_broken_whole_answer_is_502(dialect: Dialect, body: bytes) -> None:
    if body == b"Hello":
        body = dialect.whole.replace(body, b"\xff")
    error, _ = failing(dialect, once(reply(200, body)), request=WHOLE)
    assert isinstance(error, BackendError)
    assert error.status == 502


@both
def test_a_reset_is_502(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(dialect.head + chunk(dialect.pieces[0]))
        peer.reset()

    error, _ = failing(dialect, script)
    assert (type(error), error.status) == (BackendError, 502)


@both
def test_an_error_in_the_stream_ends_it(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(dialect.head + chunk(dialect.pieces[0]))
        await step.wait()
        await peer.send(chunk(dialect.framed(dialect.error("the GPU has gone"))) + chunk(b""))

    async def scenario() -> None:
        told: list[Event] = []
        async with faulty(script) as fake:
            source = backend(dialect, fake.port)
            asking = asyncio.create_task(answer(source, told=told))
            await until(lambda: bool(told))
            step.set()
            with pytest.raises(BackendError, match="the GPU has gone"):
                await asking
            assert words(told) == "Hel"
            await source.close()

    step = asyncio.Event()
    asyncio.run(scenario())


@both
@pytest.mark.parametrize("request_", [ASK, WHOLE], ids=["stream", "whole"])
def test_an_error_with_status_200_is_an_error(dialect: Dialect, request_: Generate) -> None:
    error, _ = failing(dialect, once(reply(200, dialect.error("Unexpected endpoint"))), request=request_)
    assert (error.status, error.message) == (502, "Unexpected endpoint")


@both
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_at_fault_keeps_status_and_reason(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error("too long", "context_length_exceeded"))))
    assert isinstance(error, InvalidRequest)
    assert (error.status, error.message) == (status, "too long")
    if dialect is OPENAI:
        assert error.code == "context_length_exceeded"


PAUSES = {"17": 17, "0": 0, "3600": 3600, "3601": None, "-1": None, "soon": None, "inf": None}


@both
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("pause", PAUSES)
def test_a_full_backend_keeps_status_and_a_sane_pause(dialect: Dialect, status: int, pause: str) -> None:
    data = reply(status, dialect.error("full"), headers=[f"Retry-After: {pause}"])
    error, _ = failing(dialect, once(data))
    assert isinstance(error, Busy)
    assert (error.status, error.message, error.retry_after) == (status, "full", PAUSES[pause])


@both
def test_a_pause_as_a_date_long_ago_is_none(dialect: Dialect) -> None:
    data = reply(503, dialect.error("full"), headers=["Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"])
    assert failing(dialect, once(data))[0].retry_after is None


@both
@pytest.mark.parametrize("status", [401, 403])
def test_our_wrong_key_is_502_and_stays_ours(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error(f"Incorrect API key: {KEY}"))))
    assert (type(error), error.status) == (BackendError, 502)


@both
@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_backend_that_echoes_our_key_is_redacted(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error(f"model for {KEY}", f"code-{KEY}"))))
    assert error.message == "model for [redacted]"
    in_band, _ = failing(dialect, once(reply(200, dialect.error(f"{KEY} failed"))))
    assert in_band.message == "[redacted] failed"


@both
def test_a_missing_model_is_404_and_a_missing_route_502(dialect: Dialect) -> None:
    error, _ = failing(dialect, once(reply(404, dialect.error("model 'm' not found"))))
    assert (type(error), error.status) == (ModelNotFound, 404)
    error, _ = failing(dialect, once(reply(404, b"404 page not found", kind="text/plain")))
    assert (type(error), error.status) == (BackendError, 502)


@both
@pytest.mark.parametrize(("status", "expected"), [(500, 500), (502, 502), (504, 504), (418, 502), (507, 502)])
def test_other_failures(dialect: Dialect, status: int, expected: int) -> None:
    error, _ = failing(dialect, once(reply(status, b"<html>oops</html>", kind="text/html")))
    assert isinstance(error, BackendError)
    assert error.status == expected
    assert "html" not in error.message


@both
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_never_followed(dialect: Dialect, status: int) -> None:
    async def scenario() -> None:
        async with faulty(always(stream(dialect))) as elsewhere:
            data = reply(status, headers=[f"Location: http://127.0.0.1:{elsewhere.port}/v1/chat/completions"])
            async with faulty(once(data)) as fake:
                source = backend(dialect, fake.port)
                with pytest.raises(BackendError) as caught:
                    await answer(source)
                assert caught.value.status == 502
                assert not elsewhere.requests
                await source.close()

    asyncio.run(scenario())


@both
def test_an_error_without_end_keeps_its_status(dialect: Dialect) -> None:
    error, _ = failing(dialect, endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"y" * 10_000), leaves=True)
    assert error.status == 500


@both
@pytest.mark.parametrize("what", ["line", "body"])
def test_what_is_endless_is_502(dialect: Dialect, what: str) -> None:
    begun = dialect.framed(b"")[:-2] if what == "line" else b""
    piece = chunk(b"y" * 1_000_000) if what == "line" else chunk(dialect.pieces[1] * 10_000)
    error, told = failing(dialect, endless(dialect.head + chunk(begun + b" "), piece), leaves=True)
    assert (type(error), error.status) == (BackendError, 502)
    assert bool(told) is (what == "body")


@both
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"error":"no"}', b'{"model":"\xff"}', b'{"data":7,"models":7,"embeddings":7}']
)
def test_a_broken_catalog_or_vector_is_502(dialect: Dialect, body: bytes) -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, body))) as fake:
            source = backend(dialect, fake.port)
            model = await source.open("m")
            for asked in (source.models(), model.embed(Embed(model="m", inputs=("hi",)))):
                with pytest.raises(BackendError) as caught:
                    await asked
                assert caught.value.status == 502
            await source.close()

    asyncio.run(scenario())


# Leaving.


@both
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


@both
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


@both
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


@both
def test_a_certificate_file_that_is_not_there_is_refused(dialect: Dialect, tmp_path: Path) -> None:
    settings = msgspec.convert({"url": "https://h", "ca_file": "ca.pem"}, dialect.backend.Settings)
    with pytest.raises(ValueError, match=r"ca_file 'ca.pem' is no file"):
        dialect.backend("up", settings, tmp_path)  # type: ignore[arg-type]  # its own
    (tmp_path / "ca.pem").touch()
    dialect.backend("up", settings, tmp_path)  # type: ignore[arg-type]  # its own


@both
def test_settings_do_not_show_the_key(dialect: Dialect) -> None:
    settings = msgspec.convert({"url": "http://h", "api_key": KEY}, dialect.backend.Settings)
    assert KEY not in repr(settings)
