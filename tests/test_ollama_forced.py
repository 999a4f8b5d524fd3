"""What Ollama has no word for: a call that must be made, and at most one. Against a fake that answers as its script says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw, structs

from canonical.errors import InvalidRequest, Unsupported
from canonical.events import Event, fold
from canonical.messages import Message, Text, ToolCall
from canonical.requests import Generate, Output, Tool, ToolChoice
from tests.faulty import faulty, once
from tests.upstreams import OLLAMA, answer, backend, stream

WEATHER = Tool(name="get_weather", parameters=Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}'))
CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
EARLIER = Message("assistant", (ToolCall("1", "get_weather", "{}"),))
ASK = Generate(model="m", messages=(Message("user", (Text("hi"),)), EARLIER), tools=(WEATHER,))
MUST = structs.replace(ASK, tool_choice=ToolChoice("required"))


def said(*contents: str, reason: str = "stop", **message: Any) -> bytes:
    """Lines of an answer: one a text."""
    lines: list[Any] = [
        {"model": "m", "message": {"role": "assistant", "content": text}, "done": False} for text in contents
    ]
    if message:
        lines.append({"model": "m", "message": {"role": "assistant", "content": "", **message}, "done": False})
    end = {"role": "assistant", "content": ""}
    lines.append(
        {"model": "m", "message": end, "done": True, "done_reason": reason, "eval_count": 9, "prompt_eval_count": 3}
    )
    return stream(OLLAMA, pieces=[json.dumps(line).encode() + b"\n" for line in lines])


def asked(request: Generate, reply: bytes) -> tuple[list[Event], Any]:
    """The answer's events, and the body that the server got."""

    async def scenario() -> tuple[list[Event], Any]:
        async with faulty(once(reply)) as fake:
            source = backend(OLLAMA, fake.port)
            events = await answer(source, request)
            await source.close()
            return events, json.loads(fake.requests[0].body)

    return asyncio.run(scenario())


def test_m3_a_forced_call_is_held_by_format() -> None:
    events, body = asked(MUST, said('{"name": "get_', 'weather", "arguments": {"city"', ': "Paris"}}'))
    found = fold(events)
    (call,) = found.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert (found.text, found.reason) == ("", "tool_calls")
    assert found.usage is not None
    assert found.usage.completion == 9
    assert "tools" not in body
    assert body["format"]["properties"]["name"] == {"const": "get_weather"}
    assert "get_weather" in body["messages"][0]["content"]
    assert body["messages"][2]["tool_calls"]  # earlier turns stay as they are


def test_m3_a_call_that_no_format_held_is_read_all_the_same() -> None:
    """Of models with parsers of their own, Ollama forgets the format where they do not think."""
    found = fold(asked(MUST, said(f"Sure.\n<tool_call>\n{CALL}\n</tool_call>"))[0])
    assert ([call.name for call in found.tool_calls], found.text, found.reason) == (
        ["get_weather"],
        "Sure.",
        "tool_calls",
    )
    found = fold(asked(MUST, said("I cannot."))[0])
    assert (found.tool_calls, found.text, found.reason) == ((), "I cannot.", "stop")
    found = fold(asked(MUST, said('{"name": "get_wea', reason="length"))[0])
    assert (found.tool_calls, found.text, found.reason) == ((), "", "length")


def test_m4_what_cannot_be_forced_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tool named 'f'"):
        asked(structs.replace(ASK, tool_choice=ToolChoice("named", "f")), said(CALL))
    with pytest.raises(Unsupported, match="only one of"):
        asked(structs.replace(MUST, output=Output("json")), said(CALL))


def test_m3_at_most_one_call_is_passed_on_where_one_is_wanted() -> None:
    calls = [{"function": {"name": "get_weather", "arguments": {"city": city}}} for city in ("Paris", "Rome")]
    both = fold(asked(ASK, said("Wait.", tool_calls=calls))[0])
    assert [json.loads(call.arguments)["city"] for call in both.tool_calls] == ["Paris", "Rome"]
    events, body = asked(structs.replace(ASK, parallel_tool_calls=False), said("Wait.", tool_calls=calls))
    one = fold(events)
    assert [json.loads(call.arguments)["city"] for call in one.tool_calls] == ["Paris"]
    assert (one.text, one.reason, one.usage) == (both.text, both.reason, both.usage)
    assert len(body["tools"]) == 1
