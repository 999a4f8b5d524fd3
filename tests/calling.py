"""What the tests of the transport and of the backends over it have in common: loops, clients, moments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from backends.connection import Response
from backends.transport import Address, Client, Limits
from tests.faulty import chunked_head

Run = Callable[[Coroutine[Any, Any, None]], None]

each_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""The two differ in when they write, close and tell of it."""

SSE = chunked_head("text/event-stream")
SOON = 0.05
"""Seconds: a limit that is reached soon. Nothing measures it."""


def client(port: int, **limits: float) -> Client:
    return Client("fake", Address("127.0.0.1", port), Limits(**limits))  # type: ignore[arg-type]  # bytes and counts are whole


async def post(client: Client, body: bytes = b"{}") -> Response:
    return await client.send(client.head("POST", "/v1/x", {"X-Test": "1"}), body)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until an inner state is reached; one that never comes is a test that times out."""
    while not condition():  # noqa: ASYNC110  no event tells of an inner state
        await asyncio.sleep(0)
