"""The honest word: strict refuses what would be dropped, and the report tells the rest, in every dialect (promise M3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from backends.echo import EchoBackend, EchoSettings
from gateway.settings import Config, Cors, Key, Listener, ModelEntry
from gateway.web.caller import HEADER_LIMIT
from tests.asgi import Call, Headers, House
from tests.serving import serving
from tests.virtual_time import run

TURN = [{"role": "user", "content": "Hello there"}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURN, "seed": 1},
    "/v1/completions": {"prompt": "Hello there", "seed": 1},
    "/v1/embeddings": {"input": "Hello there", "user": "me"},
    "/v1/responses": {"input": "Hello there", "temperature": 0.5, "store": False},
    "/api/chat": {"messages": TURN, "options": {"seed": 1}},
    "/api/generate": {"prompt": "Hello there", "raw": True, "options": {"seed": 1}},
    "/api/embed": {"input": "Hello there", "truncate": False},
    "/api/embeddings": {"prompt": "Hello there", "options": {"num_ctx": 1}},
    "/v1/messages": {"messages": TURN, "max_tokens": 9, "top_k": 5},
}
NAMES = {
    "/v1/chat/completions": "seed",
    "/v1/completions": "seed",
    "/v1/embeddings": "user",
    "/v1/responses": "temperature",
    "/api/chat": "options.seed",
    "/api/generate": "options.seed",
    "/api/embed": "truncate",
    "/api/embeddings": "options.num_ctx",
    "/v1/messages": "top_k",
}
"""What echo drops of each."""
STRICT = (b"dragoman-strict", b"true")
IN_HEADER = (b"dragoman-report", b"header")
IN_BODY = (b"dragoman-report", b"body")

routes = pytest.mark.parametrize("path", ROUTES)


def house(**more: Any) -> House:
    echo: Any = EchoBackend("echo", EchoSettings())  # the real one, no Home
    return House(echo=echo, **{"models": [ModelEntry(id="echo", backend="echo")], **more})


def ask(path: str, *headers: tuple[bytes, bytes], **more: Any) -> Call:
    return asked(house(), path, {**ROUTES[path], "model": "echo", **more}, headers)


def asked(home: House, path: str, body: Any, headers: Headers = (), log: Sequence[str] | None = None) -> Call:
    async def whole() -> Call:
        try:
            return await home.ask("POST", path, json.dumps(body).encode(), headers)
        finally:
            if isinstance(log, list):
                log.extend(home.access())
            await home.close()

    return run(whole())


def told(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call.headers[b"dragoman-report"])
    return found


def names_it(path: str, call: Call, name: str) -> None:
    """The error in the words of the path's dialect, with the field."""
    assert call.status == 400
    error = call.json()["error"]
    if path.startswith("/api"):
        assert name in error
    elif path == "/v1/messages":
        assert call.json()["type"] == "error"
        assert error["type"] == "invalid_request_error"
        assert name in error["message"]
    else:
        assert (error["param"], error["code"]) == (name, "unsupported_parameter")
        assert name in error["message"]


@routes
def test_m3_strict_of_a_request_refuses_what_would_be_dropped(path: str) -> None:
    assert ask(path).status == 200
    assert ask(path, (b"dragoman-strict", b"false")).status == 200
    names_it(path, ask(path, STRICT), NAMES[path])
    names_it(path, ask(path, STRICT, stream=True), NAMES[path])


@routes
def test_m3_strict_of_a_key_refuses_too(path: str) -> None:
    config = Config(keys=(Key(key="lenient-key"), Key(key="strict-key", strict=True)))
    for key, status in (("lenient-key", 200), ("strict-key", 400)):
        bearer = [(b"authorization", f"Bearer {key}".encode()), (b"dragoman-strict", b"0")]
        call = asked(house(config=config), path, {**ROUTES[path], "model": "echo"}, bearer)
        assert call.status == status  # and no header softens a strict key
        if status == 400:
            names_it(path, call, NAMES[path])


@routes
def test_m3_strict_of_a_model_refuses_too(path: str) -> None:
    entries = [ModelEntry(id="exact", backend="echo", name="echo", strict=True)]
    names_it(path, asked(house(models=entries), path, {**ROUTES[path], "model": "exact"}), NAMES[path])


@routes
def test_m3_a_request_that_loses_nothing_passes_strictly(path: str) -> None:
    fields = {name: value for name, value in ROUTES[path].items() if name != NAMES[path].partition(".")[0]}
    assert asked(house(), path, {**fields, "model": "echo"}, [STRICT]).status == 200


@routes
def test_m3_a_header_tells_where_it_was_asked_for(path: str) -> None:
    assert b"dragoman-report" not in ask(path).headers
    for streamed in (False, True):
        assert NAMES[path] in told(ask(path, IN_HEADER, stream=streamed))["dropped"]
    refused = ask(path, IN_HEADER, model="nobody")
    assert refused.status == 404
    assert b"dragoman-report" not in refused.headers


@routes
def test_m3_the_end_of_a_body_tells_where_it_was_asked_for(path: str) -> None:
    whole = ask(path, IN_BODY, stream=False)
    assert NAMES[path] in whole.json()["dragoman_report"]["dropped"]
    assert whole.headers[b"content-length"] == b"%d" % len(whole.body)
    assert "dragoman_report" not in ask(path, stream=False).json()
    streamed = ask(path, IN_BODY, stream=True)
    if b"event-stream" in streamed.headers[b"content-type"]:
        *_, last = streamed.body.removesuffix(b"\n\n").split(b"\n\n")
        assert NAMES[path] in json.loads(last.removeprefix(b": dragoman-report "))["dropped"]
    else:
        *others, last_line = streamed.lines()
        assert NAMES[path] in last_line["dragoman_report"]["dropped"]
        assert not any("dragoman_report" in line for line in others)


@routes
def test_m3_the_access_log_counts_what_was_dropped(path: str) -> None:
    for fields in (ROUTES[path], {**ROUTES[path], "x_one": 1}):
        log: list[str] = []
        asked(house(), path, {**fields, "model": "echo"}, (), log)
        count = 1 + ("x_one" in fields)
        assert log[-1].endswith(f" {count} dropped")
        assert "x_one" not in log[-1]


ODD = ["a\r\nset-cookie: evil=1", 'a"b\\', "a\u2028é\u0085", "\x00\x1b[2J", "a" * 100_000, ": ping\n\ndata: {}"]


@routes
@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_m3_no_name_of_a_field_breaks_out_of_its_place(path: str, name: str) -> None:
    for place in (IN_HEADER, IN_BODY):
        for streamed in (False, True):
            log: list[str] = []
            call = asked(house(), path, {**ROUTES[path], "model": "echo", "stream": streamed, name: 1}, [place], log)
            assert call.status == 200
            assert b"set-cookie" not in call.headers
            (line,) = log
            assert line.isprintable()
            header = call.headers[b"dragoman-report"]
            assert header.isascii()
            assert header.decode().isprintable()
            assert len(header) <= HEADER_LIMIT
            assert len(name) > HEADER_LIMIT or name in told(call)["dropped"]
            if place is IN_BODY and b"event-stream" in call.headers[b"content-type"]:
                comment = call.body.removesuffix(b"\n\n").split(b"\n\n")[-1].decode()
                assert len(comment.splitlines()) == 1
                assert name in json.loads(comment.removeprefix(": dragoman-report "))["dropped"]
    error = ask(path, STRICT, **{name: 1})
    assert error.status == 400
    assert len(error.body) < 4096


@routes
def test_m3_ten_thousand_fields_end_in_a_count(path: str) -> None:
    many = {f"field_{number}": 1 for number in range(10_000)}
    call = ask(path, IN_BODY, **many, stream=False)
    assert told(call)["too_long_for_a_header"]["dropped"] >= 10_000
    assert len(call.json()["dragoman_report"]["dropped"]) >= 10_000
    refused = ask(path, STRICT, **many)
    assert refused.status == 400
    assert b"more, and strict is on" in refused.body


def test_m3_web_pages_may_read_the_report() -> None:
    listener = Listener(port=11434, cors=Cors(origins=("https://app.example",)))
    home = house(listener=listener)
    origin = (b"origin", b"https://app.example")
    call = asked(home, "/api/chat", {**ROUTES["/api/chat"], "model": "echo"}, [origin, IN_HEADER])
    assert b"dragoman-report" in call.headers[b"access-control-expose-headers"]
    assert told(call)["dropped"] == ["options.seed"]


CONFIG = "listeners: [{port: 0, dialects: [openai, ollama, anthropic]}]\nbackends: {echo: {type: echo}}\n"


def test_m3_official_clients_do_not_notice_a_report_behind_their_stream(tmp_path: Path) -> None:
    wish = {"Dragoman-Report": "body"}
    with serving(CONFIG) as served:
        with openai.OpenAI(base_url=served.url + "/v1", api_key="none", default_headers=wish) as client:
            chunks = client.chat.completions.create(model="echo", messages=TURN, seed=1, stream=True)  # type: ignore[call-overload]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"
            whole = client.chat.completions.create(model="echo", messages=TURN, seed=1)  # type: ignore[call-overload]
            assert whole.choices[0].message.content == "Hello there"
            assert whole.model_extra["dragoman_report"]["dropped"] == ["seed"]
        with (
            anthropic.Anthropic(base_url=served.url, api_key="none", default_headers=wish) as other,
            other.messages.stream(model="echo", max_tokens=9, messages=TURN, extra_body={"top_k": 5}) as stream,  # type: ignore[arg-type]
        ):
            assert stream.get_final_text() == "Hello there"
        lines = httpx.post(
            served.url + "/api/chat",
            json={"model": "echo", "messages": TURN, "options": {"seed": 1}},
            headers=wish,
        ).text.splitlines()
        assert json.loads(lines[-1])["done"] is True
        assert json.loads(lines[-1])["dragoman_report"]["dropped"] == ["options.seed"]
