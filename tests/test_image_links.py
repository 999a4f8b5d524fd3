"""Links to images through the whole gateway: official clients, models inside and outside, and what is refused.

The gateway runs in memory, so that the test can say who looks names up: the server of the image is on loopback.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from gateway.accesslog import AccessLog
from gateway.config import settle
from gateway.engine import Engine
from gateway.fetch import Fetcher
from gateway.web.app import listener_app
from gateway.web.exchange import Gateway
from tests.asgi import Call, Headers
from tests.faulty import Faulty, always, chunk, chunked_head, faulty, reply, then_silent
from tests.serving import ROOT
from tests.test_fetch import HOST, PICTURE, RED
from tests.upstreams import ANTHROPIC, OLLAMA, OPENAI, Dialect, every

HERE = "http://127.0.0.1:11434"
QUESTION = "What color is the image?"


async def loopback(host: str, port: int) -> Sequence[str]:
    assert host == HOST
    return ["127.0.0.1"]


class Seeing:
    """A gateway that may follow links to ``pictures``, and takes loopback for public."""

    def __init__(self, pictures: Faulty, *, hosts: Sequence[str] | None = None, **document: Any) -> None:
        listed = [f"{HOST}:{pictures.port}"] if hosts is None else list(hosts)
        settled = settle({"images": {"hosts": listed}, **document}, base=Path(), environ={})
        fetcher = Fetcher(settled.config.images, resolve=loopback, public=lambda _: True)
        self.engine = Engine(settled, fetcher=fetcher)
        self.gateway = Gateway(self.engine, body_limit=1 << 20, access_log=AccessLog(io.StringIO()))
        self.app = listener_app(settled.config.listeners[0], settled.config, self.gateway)
        self.link = f"http://{HOST}:{pictures.port}/red"

    async def ask(self, path: str, body: dict[str, Any], headers: Headers = ()) -> Call:
        return await Call(self.app, "POST", path, json.dumps(body).encode(), headers).end()

    async def openai(self, headers: Headers = (), **more: Any) -> Call:
        parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": self.link}}]
        body = {"model": "m", "messages": [{"role": "user", "content": parts}], **more}
        return await self.ask("/v1/chat/completions", body, headers)

    async def anthropic(self, path: str = "/v1/messages", **more: Any) -> Call:
        parts = [{"type": "text", "text": QUESTION}, {"type": "image", "source": {"type": "url", "url": self.link}}]
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": parts}], **more}
        return await self.ask(path, body)


def behind(dialect: Dialect, port: int, *, relay: bool = False, **settings: Any) -> dict[str, Any]:
    kind = {OPENAI: "openai", OLLAMA: "ollama", ANTHROPIC: "anthropic"}[dialect]
    return {
        "backends": {"up": {"type": kind, "url": f"http://127.0.0.1:{port}", **settings}},
        "models": [{"id": "m", "backend": "up", "relay": relay}],
    }


def test_m3_m4_official_clients_ask_about_a_linked_image() -> None:
    async def scenario() -> None:
        local = {"type": "llama_cpp", "models_dir": str(ROOT / "models")}
        model = {"id": "m", "backend": "local", "file": "pip.gguf", "mmproj": "pip-mmproj.gguf"}
        async with faulty(always(PICTURE)) as pictures:
            house = Seeing(pictures, backends={"local": local}, models=[model])
            text: Any = {"type": "text", "text": QUESTION}

            web = httpx.AsyncClient(transport=httpx.ASGITransport(house.app))
            sdk = openai.AsyncOpenAI(base_url=f"{HERE}/v1", api_key="none", http_client=web)
            image: Any = {"type": "image_url", "image_url": {"url": house.link}}
            asked: Any = [{"role": "user", "content": [text, image]}]
            answer = await sdk.chat.completions.create(model="m", messages=asked, temperature=0)
            assert answer.choices[0].message.content == "The image is red."
            image["image_url"]["url"] = f"{HERE}/health/live"
            with pytest.raises(openai.BadRequestError, match=r"'127\.0\.0\.1' is not listed: .* data: URL"):
                await sdk.chat.completions.create(model="m", messages=asked)

            other = httpx2.AsyncClient(transport=httpx2.ASGITransport(house.app))
            claude = anthropic.AsyncAnthropic(base_url=HERE, api_key="none", http_client=other)
            image = {"type": "image", "source": {"type": "url", "url": house.link}}
            asked = [{"role": "user", "content": [text, image]}]
            message = await claude.messages.create(
                model="m", max_tokens=20, messages=asked, extra_body={"temperature": 0}
            )
            assert [block.text for block in message.content if block.type == "text"] == ["The image is red."]
            linked = await claude.messages.count_tokens(model="m", messages=asked)
            data = base64.b64encode(RED).decode()
            image["source"] = {"type": "base64", "media_type": "image/png", "data": data}
            assert linked == await claude.messages.count_tokens(model="m", messages=asked)
            assert len(pictures.requests) == 3

            await web.aclose()
            await other.aclose()
            await house.engine.close()

    asyncio.run(scenario())


@every
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_m4_every_server_gets_the_bytes_and_never_the_link(dialect: Dialect, client: str) -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures, faulty(always(reply(200, dialect.whole))) as fake:
            house = Seeing(pictures, **behind(dialect, fake.port))
            call = await getattr(house, client)()
            assert call.status == 200
            (asked,) = fake.requests
            assert HOST.encode() not in asked.body
            assert base64.b64encode(RED) in asked.body
            await house.engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_a_server_that_follows_links_gets_the_link_if_its_host_is_listed(dialect: Dialect, client: str) -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures, faulty(always(reply(200, dialect.whole))) as fake:
            house = Seeing(pictures, **behind(dialect, fake.port, image_links=True))
            assert (await getattr(house, client)()).status == 200
            assert house.link.encode() in fake.requests[0].body
            await house.engine.close()
            house = Seeing(pictures, hosts=["other.example"], **behind(dialect, fake.port, image_links=True))
            call = await getattr(house, client)()
            assert call.status == 400
            assert "images.hosts" in call.json()["error"]["message"]
            await house.engine.close()
            assert len(fake.requests) == 1
            assert not pictures.requests

    asyncio.run(scenario())


def test_ollamas_api_has_no_links() -> None:
    with pytest.raises(Exception, match="image_links"):
        settle(behind(OLLAMA, 9, image_links=True), base=Path(), environ={})


@pytest.mark.parametrize("client", ["openai", "anthropic"])
@pytest.mark.parametrize("hosts", [[], ["other.example"], [HOST]])
def test_what_is_not_listed_is_the_clients_own_400(client: str, hosts: Sequence[str]) -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures, faulty(always(reply(200, OPENAI.whole))) as fake:
            house = Seeing(pictures, hosts=hosts, **behind(OPENAI, fake.port))
            call = await getattr(house, client)()
            assert call.status == 400
            assert "is not listed" in call.json()["error"]["message"]
            if client == "openai":
                assert call.json()["error"]["param"].startswith("messages")
            assert not pictures.requests
            assert not fake.requests
            await house.engine.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("stream", [True, False])
def test_all_choices_see_one_fetch(stream: bool) -> None:
    async def scenario() -> None:
        answer = b"".join(map(chunk, [*OPENAI.pieces, b""]))
        sent = chunked_head("text/event-stream") + answer if stream else reply(200, OPENAI.whole)
        async with faulty(always(PICTURE)) as pictures, faulty(always(sent)) as fake:
            house = Seeing(pictures, **behind(OPENAI, fake.port))
            call = await house.openai(n=3, stream=stream)
            assert call.status == 200
            assert len(fake.requests) == 3
            assert all(base64.b64encode(RED) in asked.body for asked in fake.requests)
            assert len(pictures.requests) == 1
            await house.engine.close()

    asyncio.run(scenario())


def test_a_model_that_sees_nothing_costs_no_fetch() -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures:
            backends = {"local": {"type": "llama_cpp", "models_dir": str(ROOT / "models")}}
            house = Seeing(pictures, backends=backends, models=[{"id": "m", "backend": "local", "file": "embed.gguf"}])
            await house.engine.models()
            call = await house.openai()
            assert call.status == 400
            assert not pictures.requests
            await house.engine.close()

    asyncio.run(scenario())


def test_the_report_is_about_what_is_sent_on() -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures, faulty(always(reply(200, OPENAI.whole))) as fake:
            house = Seeing(pictures, **behind(OPENAI, fake.port))
            call = await house.openai([(b"dragoman-report", b"header"), (b"dragoman-strict", b"true")])
            told = json.loads(call.headers[b"dragoman-report"])
            assert call.status == 200
            assert not told["dropped"]
            assert any("image" in name or "content" in name for name in told["honoured"])
            await house.engine.close()

    asyncio.run(scenario())


def test_a_relayed_request_keeps_its_link_only_for_a_server_that_follows_it() -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as pictures, faulty(always(reply(200, OPENAI.whole))) as fake:
            house = Seeing(pictures, **behind(OPENAI, fake.port, relay=True, image_links=True))
            call = await house.openai(novel=[1e3])
            assert call.body == OPENAI.whole
            assert house.link.encode() in fake.requests[0].body
            await house.engine.close()
            house = Seeing(pictures, **behind(OPENAI, fake.port, relay=True))
            assert (await house.openai()).status == 200
            assert base64.b64encode(RED) in fake.requests[1].body
            await house.engine.close()
            house = Seeing(pictures, hosts=[], **behind(OPENAI, fake.port, relay=True, image_links=True))
            assert (await house.openai()).status == 400
            await house.engine.close()

    asyncio.run(scenario())


def test_m5_a_client_that_leaves_while_its_image_is_fetched() -> None:
    async def scenario() -> None:
        silent = then_silent(chunked_head("image/png"))
        async with faulty(silent) as pictures, faulty(always(reply(200, OPENAI.whole))) as fake:
            house = Seeing(pictures, **behind(OPENAI, fake.port))
            parts = [{"type": "image_url", "image_url": house.link}]
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
            call = Call(house.app, "POST", "/v1/chat/completions", body, ())
            while not pictures.requests:  # noqa: ASYNC110  the fake has no event for it
                await asyncio.sleep(0)
            call.leave()
            await pictures.left.wait()
            await call.end()
            assert not fake.requests
            await house.engine.close()

    asyncio.run(scenario())
