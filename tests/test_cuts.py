"""A backend that dies in mid-answer, at any byte: every dialect's client gets a legal stream that ends in one error: M4, M5.

The recorded answers are the stories of ``stories``: thoughts, two tool calls, plain text. Each is cut at every byte; at
each end of a frame the rest is asked for by every dialect, between them by one after the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from canonical.events import TextDelta
from gateway.settings import ModelEntry
from tests.asgi import House
from tests.faulty import Faulty, Peer, chunk, chunked_head, faulty
from tests.telling import Story, stories
from tests.upstreams import ANTHROPIC, OLLAMA, OPENAI, backend

TURN = {"messages": [{"role": "user", "content": "Hello"}]}
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**TURN, "stream_options": {"include_usage": True}},
    "/v1/completions": {"prompt": "Hello", "stream_options": {"include_usage": True}},
    "/api/chat": {**TURN, "think": True},
    "/api/generate": {"prompt": "Hello", "think": True},
    "/v1/messages": {**TURN, "max_tokens": 100},
    "/v1/responses": {"input": "Hello"},
}
UPSTREAMS = {"openai": OPENAI, "ollama": OLLAMA, "anthropic": ANTHROPIC}
RECORDED = {
    "/v1/chat/completions": ("openai.sse", b'"finish_reason":"'),
    "/v1/completions": ("completion.sse", b'"finish_reason":"'),
    "/api/chat": ("ollama.ndjson", b'"done":true'),
    "/api/generate": ("generate.ndjson", b'"done":true'),
    "/v1/messages": ("anthropic.sse", b'"stop_reason":"'),
}
"""What the backend is asked -> the story's file that it tells, and what stands in the record that makes it complete."""


class Recorded:
    """An answer, and where it may be cut."""

    def __init__(self, story: Story, path: str) -> None:
        file, mark = RECORDED[path]
        self.whole = (story.folder / file).read_bytes()
        gap = b"\n" if file.endswith("ndjson") else b"\n\n"
        self.ends = {at + len(gap) for at in range(len(self.whole)) if self.whole.startswith(gap, at)}
        self.finished = min(end for end in self.ends if mark in self.whole[:end])
        """From here on nothing that matters is missing."""
        self.almost = self.finished - len(gap)


def judge(path: str, body: bytes, *, late: bool = False) -> tuple[bool, str]:
    """Whether the stream ended well, and the text in it. Fails where it is not legal in the dialect of ``path``.

    ``late``: bytes that pass unread may already have told the end, when the server is lost before it is done.
    """
    text = body.decode()
    if path.startswith("/api/"):
        return _ollama(text)
    records = text.split("\n\n")
    assert records.pop() == "", "a record has no end"
    if path == "/v1/messages":
        return _anthropic(records, late=late)
    if path == "/v1/responses":
        return _responses(records)
    return _openai(records, late=late)


def _ollama(text: str) -> tuple[bool, str]:
    lines = text.split("\n")
    assert lines.pop() == "", "a line has no end"
    *before, last = map(json.loads, lines)
    assert all(line["done"] is False and "error" not in line for line in before)
    if "error" not in last:
        assert last["done"] is True
        assert last["done_reason"]
        before.append(last)
    else:
        assert set(last) == {"error"}
        assert isinstance(last["error"], str)
    return "error" not in last, "".join(
        line.get("response") or line.get("message", {}).get("content", "") for line in before
    )


def _openai(records: list[str], *, late: bool) -> tuple[bool, str]:
    assert all(record.startswith("data: ") for record in records)
    told = [record.removeprefix("data: ") for record in records]
    done = told[-1] == "[DONE]"
    frames = [json.loads(frame) for frame in told[: len(told) - done]]
    failed = "error" in frames[-1]
    assert done or failed or late  # it may follow an error, and is not needed
    if failed:
        assert set(frames.pop()["error"]) == {"message", "type", "param", "code"}
    assert not any("error" in frame for frame in frames)
    choices = [choice for frame in frames for choice in frame["choices"]]
    ends = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert len(ends) == (late or not failed)
    assert late or not failed or not any(frame.get("usage") for frame in frames)
    return not failed, "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def _events(records: list[str]) -> Iterator[dict[str, Any]]:
    for record in records:
        name, data = record.split("\n")
        told = json.loads(data.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        yield told


def _anthropic(records: list[str], *, late: bool) -> tuple[bool, str]:
    events = list(_events(records))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    failed = kinds[-1] == "error"
    assert kinds.count("error") == failed
    assert failed or kinds[-2:] == ["message_delta", "message_stop"]
    assert ("message_stop" in kinds) != failed
    assert ("message_delta" in kinds) == (late or not failed)
    if failed:
        assert set(events[-1]["error"]) >= {"type", "message"}
    place, text = None, ""
    for event in events[1:]:
        match event["type"]:
            case "content_block_start":
                assert place is None
                place = event["index"]
            case "content_block_delta":
                assert place == event["index"]
                text += event["delta"].get("text", "")
            case "content_block_stop":
                assert place == event["index"]
                place = None
            case kind:
                assert kind in {"ping", "error", "message_delta", "message_stop"}
    assert failed or place is None
    return not failed, text


def _responses(records: list[str]) -> tuple[bool, str]:
    if records[-1] == "data: [DONE]":
        records.pop()
    events = list(_events(records))
    kinds = [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kinds[:2] == ["response.created", "response.in_progress"]
    failed = kinds[-1] == "response.failed"
    assert kinds.count("error") == kinds.count("response.failed") == failed
    assert failed or kinds[-1] == "response.completed"
    assert ("response.completed" in kinds) != failed
    if failed:
        assert kinds[-2] == "error"
        last = events[-1]["response"]
        assert (last["status"], last["usage"]) == ("failed", None)
        assert last["error"]["message"]
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    return not failed, "".join(deltas)


MOST = 2000
"""Bytes; more than any story has."""


def can(path: str, story: Story, upstream: str) -> bool:
    """Prompts are no conversations: Anthropic's servers take none, and none tells of tool calls or thoughts."""
    return path not in {"/v1/completions", "/api/generate"} or (story.plain and upstream != "anthropic")


def words(story: Story) -> str:
    return "".join(event.text for event in story.events if isinstance(event, TextDelta))


TOLD = [story for story in stories() if story.name in {"thinking", "two_tool_calls", "hello"}]


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("story", TOLD, ids=lambda story: story.name)
def test_m5_a_backend_that_dies_at_any_byte(story: Story, upstream: str) -> None:
    dies(story, upstream, {})


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_m5_a_relayed_backend_that_dies_at_any_byte(upstream: str) -> None:
    (story,) = (story for story in TOLD if story.name == "two_tool_calls")
    dies(story, upstream, {"relay": True})


def dies(story: Story, upstream: str, entry: dict[str, Any]) -> None:
    """The sweep; ``entry`` is more of what the configuration says of the models."""
    dialect = UPSTREAMS[upstream]
    recorded: dict[str, Recorded] = {}

    async def script(peer: Peer) -> None:
        request = await peer.request()
        if request.path not in recorded:
            recorded[request.path] = Recorded(story, request.path)
        cut = int(json.loads(request.body)["model"])
        piece = recorded[request.path].whole[:cut]
        await peer.send(chunked_head(dialect.kind), *([chunk(piece)] if piece else []))
        if cut % 2:
            peer.reset()

    async def look(house: House, fake: Faulty, cut: int, path: str) -> Recorded:
        call = await house.ask("POST", path, {"model": str(cut), "stream": True, **ASKS[path]})
        answer = recorded[fake.requests[-1].path]
        told = f"cut at {cut} of {len(answer.whole)}, by {path}: {call.status} {call.body.decode()}"
        assert call.complete, told
        relayed = bool(entry) and fake.requests[-1].path == path
        if call.status != 200:
            assert call.status == 502, told
            assert "error" in call.json(), told
            assert cut < answer.finished, told
            return answer
        well, text = judge(path, call.body, late=relayed and cut >= answer.finished)
        assert well or relayed or cut < answer.finished, told
        assert not well or cut >= answer.almost, told
        assert words(story).startswith(text), told
        assert not well or text == words(story), told
        return answer

    async def scenario() -> None:
        async with faulty(script) as fake:
            cuts = [str(cut) for cut in range(MOST)]
            up: Any = backend(dialect, fake.port, models=cuts)
            house = House(models=[ModelEntry(id=cut, backend="up", **entry) for cut in cuts], up=up)
            asks = [path for path in ASKS if can(path, story, upstream)]
            for place, path in enumerate(asks):
                answer = await look(house, fake, MOST - 1, path)
                assert len(answer.whole) < MOST
                for cut in range(len(answer.whole)):
                    if cut in answer.ends or cut % len(asks) == place:
                        await look(house, fake, cut, path)
            await house.close()
            await up.close()

    asyncio.run(scenario())
