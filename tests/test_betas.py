"""``anthropic-beta``: the names of trial features go on to a server of that dialect, and to no other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.asgi import Call, Headers
from tests.faulty import Received, always, faulty, reply
from tests.test_relay import Relaying
from tests.upstreams import ANTHROPIC as SERVER
from tests.upstreams import OPENAI as OTHER

NAMES = b"claude-code-20250219, interleaved-thinking-2025-05-14"


def asked(kind: str, headers: Headers, *, path: str = "/v1/messages", relay: bool = True) -> Received:
    answer = (
        b'{"input_tokens":3}' if path.endswith("count_tokens") else (SERVER if kind == "anthropic" else OTHER).whole
    )

    async def scenario() -> Received:
        async with faulty(always(reply(200, answer))) as fake:
            house = Relaying(kind, fake.port, more={"relay": relay, "strict": False})
            body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            if not path.endswith("count_tokens"):
                body["max_tokens"] = 5
            call = await Call(house.app, "POST", path, json.dumps(body).encode(), headers).end()
            assert call.status == 200
            await house.close()
            (received,) = fake.requests
            assert "interleaved" not in house.line()
            return received

    return asyncio.run(scenario())


@pytest.mark.parametrize("relay", [True, False])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_names_go_on_and_nothing_else_does(relay: bool, path: str) -> None:
    headers = [(b"anthropic-beta", NAMES), (b"anthropic-beta", b"x"), (b"x-other", b"y"), (b"cookie", b"a=b")]
    received = asked("anthropic", headers, path=path, relay=relay)
    assert received.headers["anthropic-beta"] == (NAMES + b",x").decode()
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert received.headers["content-type"] == "application/json"
    assert not {"x-other", "cookie"} & received.headers.keys()
    assert json.loads(received.body)["model"] == "inner"


@pytest.mark.parametrize("names", [b"", b"a b", b"a,", b"a\xff", b"a;b", b"a\tb", b"x" * 3000, b'a"'])
def test_what_is_no_list_of_names_stays_here(names: bytes) -> None:
    assert "anthropic-beta" not in asked("anthropic", [(b"anthropic-beta", names)]).headers


def test_servers_of_other_dialects_are_not_told() -> None:
    assert "anthropic-beta" not in asked("openai", [(b"anthropic-beta", NAMES)]).headers


def test_without_names_the_head_is_the_prepared_one() -> None:
    assert "anthropic-beta" not in asked("anthropic", []).headers
