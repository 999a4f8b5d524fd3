"""Keys in bodies: what is read of requests that have shown none yet costs little, and holds nobody up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.settings import Mounted
from gateway.web import key_in_body
from gateway.web.key_in_body import with_header

FORM = b"application/x-www-form-urlencoded"
Ask = Callable[..., Awaitable[list[bytes]]]


def asking() -> Ask:
    """Asks one listener; the answer is the keys that its guard sees, and all of the body must have got there."""
    seen: dict[int, list[bytes]] = {}

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        del send
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        assert body == scope["all"]
        seen[id(scope)] = [value for name, value in scope["headers"] if name == b"x-api-key"]

    app = with_header(guard, [Mounted("libretranslate")])

    async def ask(*pieces: bytes, query: bytes = b"", wait: asyncio.Event | None = None) -> list[bytes]:
        left = list(pieces)

        async def receive() -> Any:
            if wait is not None and len(left) == 1:
                await wait.wait()
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        scope: Any = {
            "path": "/translate",
            "headers": [(b"content-type", FORM)],
            "query_string": query,
            "all": b"".join(pieces),
        }
        await app(scope, receive, None)  # type: ignore[arg-type]
        return seen[id(scope)]

    return ask


def test_a_long_body_is_searched_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[threading.Thread] = []
    find = key_in_body.key_of

    def noted(kind: bytes, body: bytes, query: bytes) -> str:
        where.append(threading.current_thread())
        return find(kind, body, query)

    monkeypatch.setattr(key_in_body, "key_of", noted)

    async def story() -> None:
        assert await asking()(b"api_key=mine&q=" + b"%31" * 100_000) == [b"mine"]
        assert where[0] is not threading.current_thread()

    asyncio.run(story())


def test_those_without_a_key_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_in_body, "ROOM", 1000)

    async def story() -> None:
        ask, go = asking(), asyncio.Event()
        long = (b"q=" + b"x" * 600, b"&api_key=mine")
        slow = asyncio.ensure_future(ask(*long, wait=go))
        await asyncio.sleep(0)
        assert await ask(*long) == []
        assert await ask(*long, query=b"api_key=mine") == [b"mine"]  # there it takes no room
        go.set()
        assert await slow == [b"mine"]
        assert await ask(*long) == [b"mine"]

    asyncio.run(story())
