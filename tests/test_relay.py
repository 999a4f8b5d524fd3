"""``relay: true``, through the whole gateway in memory: bytes to and from a server of the client's own dialect."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.accesslog import AccessLog
from gateway.config import ConfigError, settle
from gateway.engine import Engine
from gateway.web.app import listener_app
from gateway.web.exchange import Gateway
from tests.asgi import Call, Headers
from tests.calling import SOON, each_loop
from tests.faulty import Peer, Script, always, chunk, chunked_head, endless, faulty, once, reply, then_silent

KEY = "sk-very-secret"


class Way(NamedTuple):
    """One dialect's road: where a client asks, where its server is asked, and bytes that no translator would make."""

    kind: str
    path: str
    asked: str
    body: bytes
    stream_type: str
    frames: tuple[bytes, ...]
    whole: bytes
    error: bytes
    """How an error frame begins."""

    def request(self, *, stream: bool) -> bytes:
        return self.body.replace(b"STREAM", b"true" if stream else b"false")


MESSAGES = b'"messages": [ {"role":"user", "content":"hi", "cache_control":{"type":"x"}} ]'
OPENAI = Way(
    "openai",
    "/v1/chat/completions",
    "/v1/chat/completions",
    b'{ "model" : "MODEL",\n "stream":STREAM, "novelty": {"a": [1e3, "\\u00e9"]}, "n": 2, ' + MESSAGES + b" }",
    "text/event-stream; charset=utf-8",
    (
        b'data: {"choices":[{"delta":{"novel":"a\xc3\xa9"}}],"x":1e3}\r\n\r\n',
        b": a comment\n\n",
        b'event: novelty\nid: 7\ndata: {"a":\ndata: 1}\n\n',
        b'data:{"choices":[]}\n\n',
        b"data: [DONE]\n\n",
    ),
    b'{ "choices" : [ ], "novel": 1e3 }\n',
    b'data: {"error":',
)
COMPLETION = OPENAI._replace(
    path="/completions", asked="/v1/completions", body=b'{"prompt":["a","b"],"model":"MODEL","stream":STREAM}'
)
OLLAMA = Way(
    "ollama",
    "/api/chat",
    "/api/chat",
    b'{"model":"MODEL","stream":STREAM,"options":{"novel":1e3},' + MESSAGES + b"}",
    "application/x-ndjson",
    (b'{"message":{"content":"a\xe2\x80\xa8"},"done":false , "novel":1}\n', b"\n", b'{"done":true,"novel":[ ]}\n'),
    b'{"message":{},"novel":1e3}',
    b'{"error":',
)
GENERATE = OLLAMA._replace(
    path="/api/generate", asked="/api/generate", body=b'{"model":"MODEL","stream":STREAM,"prompt":"hi","novel":[ ]}'
)
ANTHROPIC = Way(
    "anthropic",
    "/v1/messages",
    "/v1/messages",
    b'{"model":"MODEL","max_tokens":5,"stream":STREAM,"context_management":{ },' + MESSAGES + b"}",
    "text/event-stream",
    (
        b'event: message_start\ndata: {"type":"message_start","novel":1e3}\n\n',
        b'event: novel_event\ndata: {"type":"novel_event"}\n\n',
        b"event: ping\ndata: {}\n\n",
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ),
    b'{"type":"message", "novel":1e3}',
    b"event: error\ndata: ",
)
WAYS = {way.path: way for way in (OPENAI, COMPLETION, OLLAMA, GENERATE, ANTHROPIC)}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
dialects = pytest.mark.parametrize("way", [OPENAI, OLLAMA, ANTHROPIC], ids=["openai", "ollama", "anthropic"])


class Relaying:
    """A gateway in memory whose model ``m`` is ``inner`` of a server on ``port``."""

    def __init__(self, kind: str, port: int, *, more: dict[str, Any] | None = None, **backend: Any) -> None:
        settled = settle(
            {
                "backends": {
                    "up": {"type": kind, "url": f"http://127.0.0.1:{port}", "api_key": KEY, **backend},
                    "echo": {"type": "echo"},
                },
                "models": [
                    {"id": "m", "backend": "up", "name": "inner", "relay": True, "strict": True, **(more or {})},
                    {"id": "spare", "backend": "echo", "name": "echo"},
                ],
                "defaults": {"chat": "m"},
                "limits": {"grace": 0},
            },
            base=Path(),
            environ={},
        )
        self.written = io.StringIO()
        self.log = AccessLog(self.written)
        self.gateway = Gateway(Engine(settled), body_limit=1 << 20, access_log=self.log)
        self.app = listener_app(settled.config.listeners[0], settled.config, self.gateway)

    def call(self, way: Way, *, stream: bool = True, model: bytes = b"m", headers: Headers = ()) -> Call:
        body = way.request(stream=stream).replace(b"MODEL", model)
        return Call(self.app, "POST", way.path, body, headers)

    async def close(self) -> None:
        assert not self.gateway.running
        await self.gateway.engine.close()

    def line(self) -> str:
        self.log.flush()
        return self.written.getvalue()


def streamed(way: Way, *pieces: bytes) -> bytes:
    return chunked_head(way.stream_type) + b"".join(map(chunk, pieces))


def answered(script: Script, way: Way, *, stream: bool = True, **settings: Any) -> tuple[Call, Relaying, list[Any]]:
    """One request's answer, the gateway that gave it, and what its server was asked."""

    async def scenario() -> tuple[Call, Relaying, list[Any]]:
        async with faulty(script) as fake:
            house = Relaying(way.kind, fake.port, **settings)
            call = await house.call(way, stream=stream).end()
            await house.close()
        return call, house, fake.requests

    return asyncio.run(scenario())


@ways
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_comes_back_byte_for_byte_however_it_is_cut(way: Way, size: int) -> None:
    sent = b"".join(way.frames)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    call, house, (asked,) = answered(always(streamed(way, *pieces, b"")), way)
    assert (call.status, call.headers[b"content-type"]) == (200, way.stream_type.encode())
    assert call.body == sent
    assert call.complete
    assert asked.path == way.asked
    assert asked.body == way.request(stream=True).replace(b"MODEL", b"inner")
    line = house.line()
    assert " m 200 0 tokens " in line
    assert "inner" not in line


@ways
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/problem+json"])
def test_a_whole_answer_comes_back_byte_for_byte(way: Way, kind: str) -> None:
    call, _, (asked,) = answered(
        always(reply(200, way.whole, kind=kind, headers=["Set-Cookie: a=b"])), way, stream=False
    )
    assert (call.status, call.body, call.headers[b"content-type"]) == (200, way.whole, kind.encode())
    assert call.headers[b"content-length"] == b"%d" % len(way.whole)
    assert b"set-cookie" not in call.headers
    assert asked.body == way.request(stream=False).replace(b"MODEL", b"inner")


@pytest.mark.parametrize(
    ("kind", "path", "asked", "body"),
    [
        ("openai", "/v1/embeddings", "/v1/embeddings", b'{"input": [[1,2]], "model":"m","novel":1e3}'),
        ("ollama", "/api/embed", "/api/embed", b'{"input":"a","model":"m","novel":1e3}'),
        ("ollama", "/api/embeddings", "/api/embeddings", b'{"prompt":"a","model":"m","novel":1e3}'),
    ],
)
def test_vectors_come_back_byte_for_byte(kind: str, path: str, asked: str, body: bytes) -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, b'{ "novel" : [1e3] }'))) as fake:
            house = Relaying(kind, fake.port)
            call = await Call(house.app, "POST", path, body, ()).end()
            assert (call.status, call.body) == (200, b'{ "novel" : [1e3] }')
            assert [(got.path, got.body) for got in fake.requests] == [(asked, body.replace(b'"m"', b'"inner"'))]
            await house.close()

    asyncio.run(scenario())


@dialects
def test_frames_arrive_as_they_come(way: Way) -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(streamed(way, way.frames[0], way.frames[-1][:3]))
            await go.wait()
            await peer.send(chunk(way.frames[-1][3:]), chunk(b""))

        async with faulty(script) as fake:
            house = Relaying(way.kind, fake.port)
            call = house.call(way)
            await call.until(2)
            assert call.body == way.frames[0]  # and no half of the next
            go.set()
            await call.end()
            assert call.body == way.frames[0] + way.frames[-1]
            await house.close()

    asyncio.run(scenario())


@dialects
@pytest.mark.parametrize(
    ("status", "script", "settings"),
    [
        (404, always(reply(404, b'{"error":{"message":"model \'x\' not found"}}')), {}),
        (400, always(reply(400, b'{"error":{"message":"no"}}')), {}),
        (502, always(reply(302, b"", headers=["Location: /x"])), {}),
        (502, always(reply(401, b"wrong " + KEY.encode())), {}),
        (502, always(reply(200, b"<html>", kind="text/html")), {}),
        (502, always(b"nonsense\r\n\r\n"), {}),
        (502, once(chunked_head("text/event-stream")), {}),
        (504, then_silent(), {"timeouts": {"first_byte": SOON}}),
    ],
    ids=["404", "400", "redirect", "key", "html", "no http", "cut", "silent"],
)
def test_failures_before_the_first_byte_keep_their_status(
    way: Way, status: int, script: Script, settings: dict[str, Any]
) -> None:
    call, _, asked = answered(script, way, **settings)
    assert call.status == status
    assert call.headers[b"content-type"].startswith(b"application/json")
    assert json.loads(call.body)["error"]
    assert KEY.encode() not in call.body
    assert len(asked) == 1


@dialects
@pytest.mark.parametrize("half", [b"", b'data: {"half":', b'{"half":'])
def test_a_stream_that_breaks_ends_in_an_error_behind_its_last_whole_frame(way: Way, half: bytes) -> None:
    call, _, _ = answered(once(streamed(way, way.frames[0], *([half] if half else []))), way)
    assert call.status == 200
    assert call.body.startswith(way.frames[0] + way.error)
    error = call.body.removeprefix(way.frames[0])
    assert b"closed the connection" in error
    assert b"half" not in error
    assert call.complete


@dialects
@pytest.mark.parametrize("half", [b"", b'data: {"half":', b'{"half":'])
def test_a_stream_that_just_ends_is_a_failure(way: Way, half: bytes) -> None:
    """As in a translated answer: a server that closes in good order has not finished by that."""
    call, _, _ = answered(once(streamed(way, way.frames[0], *([half] if half else []), b"")), way)
    assert call.body.startswith(way.frames[0] + way.error)
    error = call.body.removeprefix(way.frames[0])
    assert b"before it finished" in error
    assert b"half" not in error


@dialects
def test_nothing_follows_the_end_of_a_stream(way: Way) -> None:
    """Its server is lost when all has been said."""
    call, _, _ = answered(once(streamed(way, *way.frames)), way)
    assert (call.status, call.body, call.complete) == (200, b"".join(way.frames), True)


@dialects
def test_a_stream_that_stalls_ends_in_an_error(way: Way) -> None:
    script = then_silent(streamed(way, way.frames[0]))
    call, _, _ = answered(script, way, timeouts={"idle": SOON})
    assert call.body.startswith(way.frames[0] + way.error)
    assert b"stopped sending" in call.body


@dialects
def test_a_frame_without_an_end_is_an_error(way: Way) -> None:
    script = endless(streamed(way, way.frames[0]), chunk(b"x" * 65536))
    call, _, _ = answered(script, way)
    assert call.body.startswith(way.frames[0] + way.error)
    assert len(call.body) < 1000


@dialects
def test_a_whole_answer_that_breaks_is_an_error(way: Way) -> None:
    call, _, _ = answered(once(reply(200, way.whole)[:-3]), way, stream=False)
    assert call.status == 502
    assert json.loads(call.body)["error"]


def test_a_stream_that_its_server_answers_whole_is_passed_on_whole() -> None:
    call, _, _ = answered(always(reply(200, OPENAI.whole)), OPENAI)
    assert (call.status, call.body, call.headers[b"content-type"]) == (200, OPENAI.whole, b"application/json")


@dialects
def test_our_key_in_an_answer_is_redacted(way: Way) -> None:
    leak = way.frames[0].replace(b"novel", KEY.encode())
    call, _, _ = answered(always(streamed(way, leak, way.frames[-1], b"")), way)
    assert call.body == leak.replace(KEY.encode(), b"[redacted]") + way.frames[-1]
    call, _, _ = answered(always(reply(200, way.whole.replace(b"novel", KEY.encode()))), way, stream=False)
    assert b"[redacted]" in call.body
    assert KEY.encode() not in call.body


@dialects
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_m5_a_client_that_leaves_closes_its_server(way: Way, stream: bool, begun: bool) -> None:
    async def scenario() -> None:
        head = streamed(way, way.frames[0]) if stream else reply(200, way.whole)[:-1]
        async with faulty(then_silent(*([head] if begun else []))) as fake:
            house = Relaying(way.kind, fake.port)
            call = house.call(way, stream=stream)
            if begun and stream:
                await call.until(2)
            while not fake.requests:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0)
            call.leave()
            async with asyncio.timeout(1):
                await fake.left.wait()
            await call.end()
            await house.close()
            assert " 499 " in house.line()

    asyncio.run(scenario())


@each_loop
def test_a_shutdown_ends_a_relayed_stream_with_an_error(run: Any) -> None:
    async def scenario() -> None:
        async with faulty(then_silent(streamed(OPENAI, OPENAI.frames[0]))) as fake:
            house = Relaying("openai", fake.port)
            call = house.call(OPENAI)
            await call.until(2)
            house.gateway.draining = True
            for task in list(house.gateway.running):
                task.cancel()
            await call.end()
            assert call.body.startswith(OPENAI.frames[0] + OPENAI.error)
            assert b"shutting down" in call.body
            await house.close()

    run(scenario())


def test_fields_that_steer_the_server_are_refused_and_limits_hold() -> None:
    async def scenario() -> None:
        async with faulty(always(reply())) as fake:
            house = Relaying("openai", fake.port)
            for extra, words in (
                (b'"api_base":"http://x"', b"api_base"),
                (b'"Extra_Headers":{}', b"extra_headers"),
                (b'"n":99', b"'n'"),
                (b'"tools":[{"type":"function","function":{"name":"f","parameters":{"pattern":"((((("}}}]', None),
                (b'"x":1,"x":2', b"stands twice"),
            ):
                body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],%b}' % extra
                call = await Call(house.app, "POST", OPENAI.path, body, ()).end()
                if words is not None:
                    assert call.status == 400
                    assert words in call.body
            assert len(fake.requests) == 1  # the harmless one
            await house.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("place", ["header", "body"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_report_says_that_all_is_passed_on(stream: bool, place: str) -> None:
    async def scenario() -> None:
        sent = streamed(OPENAI, *OPENAI.frames, b"") if stream else reply(200, OPENAI.whole)
        async with faulty(always(sent)) as fake:
            house = Relaying("openai", fake.port)
            wish = [(b"dragoman-report", place.encode()), (b"dragoman-strict", b"true")]
            call = await house.call(OPENAI, stream=stream, headers=wish).end()
            told = json.loads(call.headers[b"dragoman-report"])
            assert "novelty" in told["honoured"]
            assert (told["approximated"], told["dropped"]) == ({}, [])
            assert call.body == (b"".join(OPENAI.frames) if stream else OPENAI.whole)
            await house.close()

    asyncio.run(scenario())


def test_other_dialects_and_other_names_are_translated() -> None:
    hello = b'{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"novel":1}'

    async def scenario() -> None:
        async with faulty(always(reply(200, hello))) as fake:
            house = Relaying("openai", fake.port, more={"strict": False})
            call = await house.call(OLLAMA, stream=False).end()
            assert json.loads(call.body)["message"]["content"] == "Hello"
            call = await house.call(OPENAI, stream=False, model=b"up/other").end()
            assert b"novel" not in call.body
            call = await house.call(OPENAI, stream=False, model=b"").end()  # the default: it is m
            assert call.body == hello
            assert fake.requests[-1].body == OPENAI.request(stream=False).replace(b"MODEL", b"inner")
            await house.close()

    asyncio.run(scenario())


def test_a_fallback_takes_over_where_nobody_answers() -> None:
    async def scenario() -> None:
        async with faulty(always()) as fake:
            port = fake.port
        house = Relaying("openai", port, more={"fallbacks": ["spare"], "strict": False})
        body = b'{"model":"m","messages":[{"role":"user","content":"hi there"}]}'
        call = await Call(house.app, "POST", OPENAI.path, body, ()).end()
        assert json.loads(call.body)["choices"][0]["message"]["content"] == "hi there"
        await house.close()
        house = Relaying("openai", port)
        call = await house.call(OPENAI).end()
        assert call.status == 502
        await house.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "entry",
    [
        {"backend": "echo"},
        {"backend": "up", "shims": ["tools"]},
        {"backend": "up", "inline_thinking": True},
    ],
)
def test_what_cannot_be_relayed_is_refused_at_start(entry: dict[str, Any]) -> None:
    document = {
        "backends": {"up": {"type": "openai", "url": "http://127.0.0.1:9"}, "echo": {"type": "echo"}},
        "models": [{"id": "m", "relay": True, **entry}],
    }
    with pytest.raises(ConfigError, match=r"relayed.*models\[0\]\.relay"):
        settle(document, base=Path(), environ={})
