"""A server of Anthropic's Messages API as backend, when all goes well; failures stand in the shared table."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from backends.anthropic import VERSION, AnthropicBackend, base_path
from canonical.errors import BackendError, GatewayError, ModelNotFound, Unsupported
from canonical.events import Finished, Started, Usage
from canonical.requests import Generate, Prompt
from tests.faulty import Peer, always, faulty, once, reply
from tests.upstreams import ANTHROPIC, ASK, KEY, WHOLE, answer, backend, stream, words


def test_m5_an_answer_streamed_and_whole_and_the_headers_of_the_dialect() -> None:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            streamed = json.loads(request.body)["stream"]
            await peer.send(stream(ANTHROPIC) if streamed else reply(200, ANTHROPIC.whole))

    async def scenario() -> None:
        async with faulty(script) as fake:
            source = backend(ANTHROPIC, fake.port)
            for request in (ASK, WHOLE, ASK):
                events = await answer(source, request)
                assert (events[0], words(events)) == (Started("m"), "Hello")
                assert events[-1] == Finished("stop", Usage(3, 2))
            assert fake.connections == 1
            asked = fake.requests[0]
            assert asked.path == "/v1/messages"
            assert (asked.headers["x-api-key"], asked.headers["anthropic-version"]) == (KEY, VERSION)
            assert "authorization" not in asked.headers
            await source.close()

    asyncio.run(scenario())


def test_settings_reach_the_request() -> None:
    async def scenario() -> None:
        async with faulty(once(stream(ANTHROPIC))) as fake:
            source = backend(ANTHROPIC, fake.port, api_key="", max_tokens=77, thinking="enabled")
            await answer(source, msgspec.structs.replace(ASK, think="low"))
            asked = fake.requests[0]
            assert "x-api-key" not in asked.headers
            sent = json.loads(asked.body)
            assert (sent["max_tokens"], sent["thinking"]["type"]) == (77, "enabled")
            await source.close()

    asyncio.run(scenario())


def test_the_server_counts() -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, b'{"input_tokens":12}'))) as fake:
            source = backend(ANTHROPIC, fake.port)
            assert isinstance(source, AnthropicBackend)
            model = await source.open("m")
            assert await model.count(ASK) == 12
            asked = fake.requests[0]
            assert asked.path == "/v1/messages/count_tokens"
            assert set(json.loads(asked.body)) == {"model", "messages"}
            await source.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("status", "body"), [(404, b"no such route"), (200, b"{}"), (200, b"12")])
def test_a_server_that_cannot_count_is_a_failure_and_no_guess(status: int, body: bytes) -> None:
    async def scenario() -> None:
        async with faulty(once(reply(status, body))) as fake:
            source = backend(ANTHROPIC, fake.port)
            assert isinstance(source, AnthropicBackend)
            model = await source.open("m")
            with pytest.raises(BackendError):
                await model.count(ASK)
            await source.close()

    asyncio.run(scenario())


def test_the_catalog() -> None:
    body = (
        b'{"data":[{"type":"model","id":"m","display_name":"M","created_at":"2025-01-01T00:00:00Z"}],"has_more":false}'
    )

    async def scenario() -> None:
        async with faulty(always(reply(200, body))) as fake:
            source = backend(ANTHROPIC, fake.port)
            (row,) = await source.models()
            assert (row.id, row.backend) == ("m", "up")
            assert (await source.open("m")).info == row
            assert (await source.details("m")).info == row
            with pytest.raises(ModelNotFound, match="model 'n' not found"):
                await source.details("n")
            assert fake.requests[0].path == "/v1/models?limit=1000"
            fixed = backend(ANTHROPIC, fake.port, models=["a"])
            assert [row.id for row in await fixed.models()] == ["a"]
            await source.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"error":"no"}', b'{"data":7}', b'{"data":[{"id":"\xff"}]}'])
def test_a_broken_catalog_is_502(body: bytes) -> None:
    async def scenario() -> None:
        async with faulty(once(reply(200, body))) as fake:
            source = backend(ANTHROPIC, fake.port)
            with pytest.raises(BackendError) as caught:
                await source.models()
            assert caught.value.status == 502
            await source.close()

    asyncio.run(scenario())


def test_a_prompt_without_turns_is_refused_before_anything_is_sent() -> None:
    async def scenario() -> None:
        async with faulty(once(stream(ANTHROPIC))) as fake:
            source = backend(ANTHROPIC, fake.port)
            with pytest.raises(Unsupported, match="conversations"):
                await answer(source, Generate(model="m", prompt=Prompt(text="Once")))
            assert not fake.requests
            await source.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("kind", "status"), [("overloaded_error", 503), ("rate_limit_error", 429), ("api_error", 502)])
def test_a_failure_in_the_stream_keeps_its_kind(kind: str, status: int) -> None:
    failed = b'event: error\ndata: {"type":"error","error":{"type":"%b","message":"x"}}\n\n' % kind.encode()

    async def scenario() -> None:
        async with faulty(once(stream(ANTHROPIC, pieces=[failed]))) as fake:
            source = backend(ANTHROPIC, fake.port)
            with pytest.raises(GatewayError) as caught:
                await answer(source)
            assert (caught.value.status, caught.value.message) == (status, "x")
            await source.close()

    asyncio.run(scenario())


def test_a_base_url_may_end_in_its_version() -> None:
    assert [base_path(path) for path in ("", "/v1", "/anthropic", "/anthropic/v1")] == [
        "/v1", "/v1", "/anthropic/v1", "/anthropic/v1",
    ]  # fmt: skip
