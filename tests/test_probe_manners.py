"""Servers with ways of their own: the probe asks them as they want it, and says what that takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from backends.abilities import Able, write_abilities
from canonical.events import fold
from canonical.features import Feature
from canonical.models import Capability
from gateway import config
from gateway.engine import Engine
from tests.asgi import House
from tests.faulty import Faulty, Peer, Received, Script, chunk, chunked_head, faulty, listing, reply
from tests.test_engine import CHAT, collect
from tests.test_probe import note, probed, word

Answer = Callable[[dict[str, Any]], str | tuple[int, str]]
"""A request's body -> the text of the answer, or a status and the words of an error."""

PARIS = "The capital of France is Paris."


def openai(answer: Answer) -> Script:
    """A fake that speaks OpenAI's dialect only."""

    async def say(peer: Peer, request: Received) -> None:
        if request.path != "/v1/chat/completions":
            await peer.send(reply(404, b'{"error":{"message":"no such path"}}'))
            return
        body = json.loads(request.body)
        said = answer(body)
        if isinstance(said, tuple):
            await peer.send(reply(said[0], json.dumps({"error": {"message": said[1]}}).encode()))
        elif body["stream"]:
            delta = {"delta": {"role": "assistant", "content": said}}
            end = {"delta": {}, "finish_reason": "stop"}
            records = [{"model": "m", "choices": [{"index": 0, **each}]} for each in (delta, end)]
            frames = b"".join(b"data: " + json.dumps(record).encode() + b"\n\n" for record in records)
            await peer.send(chunked_head("text/event-stream"), chunk(frames), chunk(b""))
        else:
            message = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            await peer.send(reply(body=json.dumps({"model": "m", "choices": [message]}).encode()))

    return listing(say)


def anthropic(answer: Answer) -> Script:
    """A fake that speaks Anthropic's dialect only; a text ``thought|words`` has a thought."""

    def events(said: str) -> bytes:
        thought, _, words = said.rpartition("|")
        blocks = [("thinking", thought)] if thought else []
        blocks.append(("text", words))
        told: list[dict[str, Any]] = [
            {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3}}}
        ]
        for index, (kind, text) in enumerate(blocks):
            told += [
                {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}},
                {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", kind: text}},
                {"type": "content_block_stop", "index": index},
            ]
        told += [
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ]
        return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.path != "/v1/messages":
                await peer.send(reply(404, b'{"type":"error","error":{"type":"not_found_error","message":"no"}}'))
                continue
            body = json.loads(request.body)
            said = answer(body) if body["messages"] else (400, "messages: at least one")
            if isinstance(said, tuple):
                error = {"type": "error", "error": {"type": "invalid_request_error", "message": said[1]}}
                await peer.send(reply(said[0], json.dumps(error).encode()))
            elif body["stream"]:
                await peer.send(chunked_head("text/event-stream"), chunk(events(said)), chunk(b""))
            else:
                content = [{"type": "text", "text": said.rpartition("|")[2]}]
                message = {"type": "message", "model": "m", "content": content, "stop_reason": "end_turn"}
                usage = {"input_tokens": 3, "output_tokens": 2}
                await peer.send(reply(body=json.dumps({**message, "usage": usage}).encode()))

    return script


def found_at(script: Script, **more: object) -> tuple[Able, str, Faulty]:
    async def whole() -> tuple[Able, str, Faulty]:
        async with faulty(script) as fake:
            found, said = await probed(fake.port, **more)
            ((_, _, able),) = found.models()
            return able, said, fake

    return asyncio.run(whole())


def test_a_model_that_takes_no_temperature_is_asked_without():
    able, _, fake = found_at(openai(lambda body: (400, "temperature is fixed") if "temperature" in body else PARIS))
    assert note(able.features[Feature.TEMPERATURE]) == "temperature is fixed"
    assert word(able.features[Feature.SCHEMA]) == "dropped"  # asked, and answered
    assert word(able.features[Feature.TOP_K]) == "unknown"  # is shown by a high temperature alone
    kept = [request for request in fake.requests if b'"response_format"' in request.body]
    assert kept
    assert not any(b"temperature" in request.body for request in kept)


def test_a_server_that_wants_the_limit_spelled_otherwise():
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    able, said, _ = found_at(openai(lambda body: (400, words) if "max_tokens" in body else PARIS))
    assert able.asked_with == {"max_tokens_field": "max_completion_tokens"}
    assert word(able.also["chat"]) == "honoured"
    assert word(able.features[Feature.SCHEMA]) == "dropped"
    assert "ended early" not in said


def test_a_refusal_in_the_guise_of_the_servers_own_error():
    """llama-server says 500 to pictures that its model cannot see."""
    words = "image input is not supported"
    able, _, _ = found_at(openai(lambda body: (500, words) if "image_url" in json.dumps(body) else PARIS))
    assert (word(able.features[Feature.IMAGE]), note(able.features[Feature.IMAGE])) == ("refused", words)
    assert able.capabilities[Capability.VISION] is False
    assert able.capabilities[Capability.CHAT] is True


def test_a_busy_server_is_asked_again():
    turned_away: list[int] = []

    def answer(_: dict[str, Any]) -> str | tuple[int, str]:
        turned_away.append(1)
        return (429, "wait") if len(turned_away) == 1 else PARIS

    async def script(peer: Peer) -> None:
        inner = openai(answer)
        write = peer.send

        async def send(*pieces: bytes) -> None:
            await write(
                *(piece.replace(b"HTTP/1.1 429 Fine", b"HTTP/1.1 429 Busy\r\nRetry-After: 0") for piece in pieces)
            )

        peer.send = send  # type: ignore[method-assign]  # one header more
        await inner(peer)

    able, said, _ = found_at(script)
    assert word(able.also["chat"]) == "honoured"
    assert "ended early" not in said


THINKS = {"begun": "<think>\nIt is Paris.\n</think>\n\n" + PARIS, "opened": "It is Paris.\n</think>\n\n" + PARIS}


@pytest.mark.parametrize("how", THINKS)
def test_thoughts_in_the_text_are_found_and_then_told_apart_for_clients(tmp_path: Path, how: str):
    """Nobody wrote ``inline_thinking`` into the configuration: the file says it."""

    async def whole() -> None:
        async with faulty(openai(lambda _: THINKS[how])) as fake:
            found, _ = await probed(fake.port)
            able = found.openai["m"]
            assert able.inline_thinking == (True if how == "begun" else "opened")
            assert word(able.features[Feature.THINK_ON]) == "honoured"
            assert able.capabilities[Capability.REASONING] is True
            (tmp_path / "found.json").write_bytes(write_abilities(found, json=True))
            backend = {"type": "openai", "url": f"http://127.0.0.1:{fake.port}", "abilities": "found.json"}
            settled = config.settle({"backends": {"there": backend}}, base=tmp_path, environ={})
            answered = fold(await collect(Engine(settled).generate(structs.replace(CHAT, model="m"))))
            assert (answered.text, answered.reasoning) == (PARIS, "It is Paris.")
            house = House(**settled.backends)  # and one with an entry, which says nothing of it
            for stream in (False, True):
                body = {"model": "there", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
                answer = await house.ask("POST", "/api/chat", body)
                messages = [line["message"] for line in answer.lines()]
                assert "".join(message["content"] for message in messages) == PARIS
                assert "".join(message.get("thinking", "") for message in messages) == "It is Paris."
            await house.close()

    asyncio.run(whole())


def test_an_older_servers_words_for_thinking_are_found():
    def answer(body: dict[str, Any]) -> str | tuple[int, str]:
        thinking = body.get("thinking", {})
        if thinking.get("type") == "enabled" and thinking["budget_tokens"] >= body["max_tokens"]:
            return 400, "max_tokens must be greater than thinking.budget_tokens"
        return "I must think.|" + PARIS if thinking.get("type") == "enabled" else PARIS

    able, said, _ = found_at(anthropic(answer), models=["m"])
    assert able.asked_with == {"thinking": "enabled"}
    assert word(able.features[Feature.THINK_ON]) == word(able.features[Feature.THINK_OFF]) == "honoured"
    assert able.capabilities[Capability.REASONING] is True
    assert "ended early" not in said


def test_a_server_that_never_thinks_needs_no_setting():
    able, _, _ = found_at(anthropic(lambda _: PARIS), models=["m"])
    assert able.asked_with == {}
    assert able.capabilities[Capability.REASONING] is False
    assert word(able.features[Feature.THINK_ON]) == "unknown"


def test_a_model_that_cannot_talk_but_goes_on_with_texts():
    """What a base model's server says: no template, no chat."""

    async def go_on(peer: Peer, request: Received) -> None:
        if request.path == "/v1/completions":
            end = b'data: {"model":"m","choices":[{"index":0,"text":" Paris","finish_reason":"stop"}]}\n\n'
            await peer.send(chunked_head("text/event-stream"), chunk(end), chunk(b""))
        else:
            await peer.send(reply(400, b'{"error":{"message":"the model has no chat template"}}'))

    able, _, _ = found_at(listing(go_on), dialects=["openai"])
    assert able.capabilities[Capability.CHAT] is False
    assert able.capabilities[Capability.COMPLETE] is True
    assert able.capabilities[Capability.TOOLS] is False
    assert note(able.also["chat"]) == "the model has no chat template"
