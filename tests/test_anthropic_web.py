"""The routes of the Anthropic dialect in memory: crossroads, headers, counting, failures early and late."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends.base import Counts
from canonical.errors import BackendError, InvalidRequest
from canonical.events import Started, TextDelta
from canonical.models import Capability
from canonical.requests import Generate
from gateway.settings import Config, Cors, Listener
from tests.asgi import Call, Headers, House
from tests.houses import HELLO, Home, Talks, tells
from tests.virtual_time import run

ASK = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": "the secret prompt"}]}
VERSION = [(b"anthropic-version", b"2026-10-21")]
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"


class Counting(Talks):
    """A model that counts: ten tokens a message."""

    async def count(self, request: Generate) -> int:
        return 10 * len(request.messages)


def counting() -> Home:
    home = Home(tells(HELLO))
    home.model = Counting(home.info, tells(HELLO), 1)
    assert isinstance(home.model, Counts)
    return home


def ask(
    method: str, path: str, body: Any = b"", headers: Headers = (), *, home: Home | None = None, **more: Any
) -> Call:
    async def whole() -> Call:
        house = House(a=home or Home(tells(*[[event] for event in HELLO])), **more)
        call = await house.ask(method, path, body, headers)
        assert len(house.access()) == 1
        await house.close()
        return call

    return run(whole())


def records(call: Call) -> list[tuple[str, Any]]:
    """Each frame's event name and data."""
    found = []
    for frame in call.body.decode().removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("path", [MESSAGES, "/v1/v1/messages"])
def test_m4_a_message_whole_and_streamed(path: str) -> None:
    whole = ask("POST", path, ASK)
    assert whole.status == 200
    assert whole.json()["content"] == [{"type": "text", "text": "Hello"}]
    id = whole.headers[b"request-id"].decode()
    assert len(id) == 28
    assert whole.json()["id"] == id.replace("req_", "msg_")
    streamed = ask("POST", path, {**ASK, "stream": True})
    assert streamed.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"request-id" in streamed.headers
    names = [name for name, _ in records(streamed)]
    assert names == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert all(name == data["type"] for name, data in records(streamed))


def test_m4_a_failure_before_the_first_word_keeps_its_status_and_one_after_it_is_a_frame() -> None:
    early = ask("POST", MESSAGES, {**ASK, "stream": True}, home=Home(tells(BackendError("the GPU has gone"))))
    assert (early.status, early.headers[b"x-should-retry"]) == (502, b"false")
    assert early.json()["error"] == {"type": "api_error", "message": "the GPU has gone"}
    story = tells([Started("m")], [TextDelta("Hel")], BackendError("the GPU has gone"))
    late = ask("POST", MESSAGES, {**ASK, "stream": True}, home=Home(story))
    assert late.status == 200
    assert records(late)[-1] == ("error", {"type": "error", "error": early.json()["error"]})
    assert "message_stop" not in late.body.decode()


def test_a_prompt_is_counted_or_the_answer_says_that_it_is_not() -> None:
    body = {key: value for key, value in ASK.items() if key != "max_tokens"}
    counted = ask("POST", COUNT, {**body, "system": "Mind."}, home=counting())
    assert (counted.status, counted.json()) == (200, {"input_tokens": 20})
    refused = ask("POST", COUNT, body)
    assert refused.status == 501
    assert refused.headers[b"x-should-retry"] == b"false"
    assert refused.json()["error"]["message"] == 'the backend of "a" cannot count tokens'
    assert ask("POST", COUNT, {**body, "model": "none"}).status == 404
    blind = Home(tells(HELLO), abilities=[Capability.CHAT])
    tool = {"name": "f", "input_schema": {"type": "object"}}
    assert (
        "does not support tools" in ask("POST", COUNT, {**body, "tools": [tool]}, home=blind).json()["error"]["message"]
    )


def test_a_count_is_held_to_the_limits_of_requests() -> None:
    tool = {"name": "f", "input_schema": {"enum": list(range(3000))}}
    call = ask("POST", COUNT, {**ASK, "tools": [tool]}, home=counting())
    assert call.status == 400
    assert "nodes" in call.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "keys", "status"),
    [
        ("POST", MESSAGES, (), 400),
        ("GET", MESSAGES, (), 405),
        ("POST", "/v1/messages/batches", (), 404),
        ("POST", MESSAGES, ("k",), 401),
    ],
)
def test_m4_an_error_bears_its_requests_id_twice(method: str, path: str, keys: tuple[str, ...], status: int) -> None:
    call = ask(method, path, {}, config=Config(keys=keys))
    assert call.status == status
    assert call.json()["request_id"] == call.headers[b"request-id"].decode()
    assert call.json()["request_id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a", "/v1/models/none"])
def test_the_header_decides_who_answers_on_a_path_with_two_owners(path: str) -> None:
    theirs, ours = ask("GET", path, headers=VERSION), ask("GET", path)
    assert theirs.status == ours.status
    assert b"request-id" in theirs.headers
    assert b"x-request-id" in ours.headers
    if path.endswith("none"):
        assert theirs.json()["error"]["type"] == "not_found_error"
        assert ours.json()["error"]["code"] == "model_not_found"
    elif path.endswith("/a"):
        assert (theirs.json()["type"], ours.json()["object"]) == ("model", "model")
    else:
        assert theirs.json()["has_more"] is False
        assert ours.json()["object"] == "list"


@pytest.mark.parametrize(("dialects", "anthropic"), [(("openai",), False), (("anthropic",), True)])
def test_where_there_is_one_owner_the_header_decides_nothing(dialects: Any, anthropic: bool) -> None:
    listener = Listener(port=1, dialects=dialects)
    for headers in (VERSION, []):
        told = ask("GET", "/v1/models", headers=headers, listener=listener).json()
        assert ("has_more" in told) is anthropic
    missing = ask("GET", "/v1/nothing", headers=VERSION, listener=listener).json()
    assert (missing.get("type") == "error") is anthropic


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "anthropic"),
    [
        ("POST", "/v1/messages/batches", [], 404, True),
        ("GET", MESSAGES, [], 405, True),
        ("POST", "/v1/complete", [], 404, True),
        ("POST", "/v1/files", [], 404, False),
        ("POST", "/v1/files", VERSION, 404, True),
        ("POST", "/v1/chat/none", [], 404, False),
        ("POST", "/v1/chat/none", VERSION, 404, True),
        ("DELETE", "/v1/models/a", VERSION, 405, True),
        ("DELETE", "/v1/models/a", [], 501, False),
        ("POST", MESSAGES, [], 400, True),
    ],
)
def test_m4_errors_under_v1_speak_the_dialect_of_who_asks(
    method: str, path: str, headers: Headers, status: int, anthropic: bool
) -> None:
    call = ask(method, path, b"{}", headers)
    assert call.status == status
    assert (call.json().get("type") == "error") is anthropic


@pytest.mark.parametrize("key", [(b"x-api-key", b"first-key-123"), (b"authorization", b"Bearer first-key-123")])
def test_both_ways_to_send_a_key_and_a_refusal_in_the_dialects_words(key: tuple[bytes, bytes]) -> None:
    config = Config(keys=("first-key-123",))
    assert ask("POST", MESSAGES, ASK, [key], config=config).status == 200
    for path, headers in ((MESSAGES, []), ("/v1/models", VERSION)):
        refused = ask("POST", path, ASK, headers, config=config)
        assert (refused.status, refused.json()["error"]["type"]) == (401, "authentication_error")


def test_a_page_may_send_the_dialects_headers_and_read_the_requests_id() -> None:
    listener = Listener(port=1, cors=Cors(origins=("https://chat.example.org",)))
    origin = (b"origin", b"https://chat.example.org")
    asked = b"anthropic-version,anthropic-beta,anthropic-dangerous-direct-browser-access,x-api-key"

    async def whole() -> None:
        house = House(listener=listener, a=Home(tells(HELLO)))
        preflight = await house.ask("OPTIONS", MESSAGES, b"", [origin, (b"access-control-request-headers", asked)])
        assert (preflight.status, preflight.headers[b"access-control-allow-headers"]) == (204, asked)
        call = await house.ask("POST", MESSAGES, ASK, [origin])
        assert b"request-id" in call.headers[b"access-control-expose-headers"].split(b", ")
        await house.close()

    run(whole())


def test_a_prompt_is_not_in_the_log() -> None:
    async def whole() -> None:
        house = House(a=Home(tells(HELLO, InvalidRequest("no"))))
        await house.ask("POST", MESSAGES, ASK)
        await house.ask("POST", COUNT, ASK)
        assert [line.split(" ", 5)[:5] for line in house.access()] == [
            ["anthropic", "POST", MESSAGES, "a", "400"],
            ["anthropic", "POST", COUNT, "a", "501"],
        ]
        await house.close()

    run(whole())
