"""A client that leaves, of every dialect, is left by the backend behind too: before a byte, amid a stream, in the queue: M5.

A real gateway before a fake of each kind of backend, which answers as far as the name of its model says and then waits to
be left. Nothing here measures: a departure that does not arrive is a test that times out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from tests.faulty import Faulty, Peer, chunk, chunked_head, faulty
from tests.serving import serving
from tests.telling import stories
from tests.test_cuts import ASKS, RECORDED, UPSTREAMS, Recorded

CONFIG = """
listeners: [{{port: 0}}]
backends:
  up: {{type: {kind}, url: "http://127.0.0.1:{port}", models: [silent, begun]}}
  one: {{type: {kind}, url: "http://127.0.0.1:{port}", models: [silent], max_running: 1}}
"""
(HELLO,) = (story for story in stories() if story.name == "hello")


class Scene(NamedTuple):
    """A gateway's port, the backend behind it, and what has reached that."""

    port: int
    fake: Faulty
    asked: asyncio.Queue[str]
    """Paths, as the requests come; those that begin to be answered when that has been sent."""
    left: asyncio.Queue[None]

    async def call(self, path: str, model: str, *, stream: bool) -> asyncio.StreamWriter:
        """A client that has asked, and that has read what there is to read."""
        body = json.dumps({"model": model, "stream": stream, **ASKS[path]}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {len(body)}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.encode() + body)
        if model != "one/silent":
            await self.asked.get()
        if stream and model == "up/begun":
            assert (await reader.readline()).split()[1] == b"200"
        return writer


@asynccontextmanager
async def scene(upstream: str) -> AsyncIterator[Scene]:
    dialect = UPSTREAMS[upstream]
    asked: asyncio.Queue[str] = asyncio.Queue()
    left: asyncio.Queue[None] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        body = json.loads(request.body)
        if body["model"] == "begun":
            answer = Recorded(HELLO, request.path)
            streamed = body.get("stream", dialect.kind == "application/x-ndjson")
            some = answer.whole[: sorted(answer.ends)[len(answer.ends) // 2]] if streamed else b'{"model":'
            await peer.send(chunked_head(dialect.kind if streamed else "application/json"), chunk(some))
        asked.put_nowait(request.path)
        await peer.gone()
        left.put_nowait(None)

    async with faulty(script) as fake:
        with serving(CONFIG.format(kind=upstream, port=fake.port)) as gateway:
            yield Scene(int(gateway.url.rsplit(":", 1)[1]), fake, asked, left)


def paths(upstream: str) -> list[str]:
    """Anthropic's servers take no prompts."""
    return [path for path in ASKS if path != "/v1/completions" or upstream != "anthropic"]


def go(writer: asyncio.StreamWriter, *, rudely: bool) -> None:
    """Close, or reset."""
    if rudely:
        writer.transport.abort()
    else:
        writer.close()


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_m5_a_client_that_leaves_is_left_behind_too(upstream: str) -> None:
    async def scenario() -> None:
        async with scene(upstream) as here:
            for path in paths(upstream):
                for model in ("up/silent", "up/begun"):
                    for stream in (False, True):
                        for rudely in (False, True):
                            go(await here.call(path, model, stream=stream), rudely=rudely)
                            await here.left.get()
            assert set(RECORDED) >= {request.path for request in here.fake.requests}

    asyncio.run(scenario())


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_m5_who_leaves_the_queue_never_reaches_the_backend(upstream: str) -> None:
    async def scenario() -> None:
        async with scene(upstream) as here:
            for path in paths(upstream):
                seen = len(here.fake.requests)
                first = await here.call(path, "one/silent", stream=True)
                await here.asked.get()
                for rudely in (False, True):
                    go(await here.call(path, "one/silent", stream=True), rudely=rudely)
                go(first, rudely=False)
                await here.left.get()
                last = await here.call(path, "one/silent", stream=False)
                await here.asked.get()
                go(last, rudely=True)
                await here.left.get()
                assert len(here.fake.requests) == seen + 2, "somebody who had left was served"

    asyncio.run(scenario())
