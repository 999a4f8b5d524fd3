"""The official Python client's own models take what we write."""

from __future__ import annotations

import json

import pytest
from ollama import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse
from ollama._types import ChatRequest, GenerateRequest, Message, Tool

from adapters.dialect import Ask, LoadAsk
from adapters.ollama import serve
from canonical.events import Finished, fold
from canonical.messages import ToolCall, ToolResult
from canonical.requests import Embeddings
from tests.telling import STAMP, Story, stories

CASES = pytest.mark.parametrize("story", stories(), ids=lambda story: story.name)


@CASES
def test_m6_the_official_chat_model_reads_the_story(story: Story) -> None:
    answer = fold(story.events)
    lines = (story.folder / "ollama.ndjson").read_text().splitlines()
    chunks = [ChatResponse.model_validate_json(line) for line in lines]
    assert "".join(chunk.message.content or "" for chunk in chunks) == answer.text
    assert "".join(chunk.message.thinking or "" for chunk in chunks) == answer.reasoning
    calls = [call.function for chunk in chunks for call in chunk.message.tool_calls or ()]
    assert [(call.name, call.arguments) for call in calls] == [
        (call.name, json.loads(call.arguments)) for call in answer.tool_calls
    ]
    assert all(chunk.message.role == "assistant" for chunk in chunks)
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    whole = ChatResponse.model_validate_json((story.folder / "ollama.json").read_bytes())
    assert (whole.message.content, whole.message.thinking or "") == (answer.text, answer.reasoning)
    end = story.events[-1]
    assert isinstance(end, Finished)
    if end.usage is not None:
        assert whole.prompt_eval_count == chunks[-1].prompt_eval_count == end.usage.prompt
        assert (whole.eval_count or 0) == end.usage.completion
    if end.timings is not None:
        assert whole.total_duration == end.timings.total


@CASES
def test_m6_the_official_generate_model_reads_the_story(story: Story) -> None:
    answer = fold(story.events)
    lines = (story.folder / "generate.ndjson").read_text().splitlines()
    chunks = [GenerateResponse.model_validate_json(line) for line in lines]
    assert "".join(chunk.response or "" for chunk in chunks) == answer.text
    assert "".join(chunk.thinking or "" for chunk in chunks) == answer.reasoning
    whole = GenerateResponse.model_validate_json((story.folder / "generate.json").read_bytes())
    assert whole.response == answer.text
    assert len(whole.logprobs or ()) == len(answer.logprobs)


def test_m6_the_official_models_read_loads_and_embeddings() -> None:
    load = serve.read_chat(b'{"model":"m"}')
    assert isinstance(load, LoadAsk)
    assert ChatResponse.model_validate_json(load.whole(STAMP)).done_reason == "load"
    answer = Embeddings(model="m", vectors=([0.5],), prompt_tokens=1)
    body = serve.read_embed(b'{"model":"m","input":"x"}').whole(answer)
    assert EmbedResponse.model_validate_json(body).embeddings == [[0.5]]
    body = serve.read_embeddings(b'{"model":"m","prompt":"x"}').whole(answer)
    assert EmbeddingsResponse.model_validate_json(body).embedding == [0.5]


def test_m6_what_the_official_client_sends_is_read() -> None:
    def weather(city: str) -> str:
        """The weather.

        Args:
            city: Where.
        """
        return city

    from ollama._utils import convert_function_to_tool

    called = Message.ToolCall(function=Message.ToolCall.Function(name="weather", arguments={"city": "Graz"}))
    request = ChatRequest(
        model="m",
        messages=[
            Message(role="user", content="Weather?"),
            Message(role="assistant", tool_calls=[called]),
            Message(role="tool", tool_name="weather", content="sunny"),
        ],
        tools=[Tool.model_validate(convert_function_to_tool(weather))],
        options={"temperature": 0},
        keep_alive="5m",
        think=True,
        stream=False,
    )
    ask = serve.read_chat(request.model_dump_json(exclude_none=True).encode())
    assert isinstance(ask, Ask)
    (found,) = ask.requests
    assert found.messages[1].parts == (ToolCall("call_1_0", "weather", '{"city":"Graz"}'),)
    assert found.messages[2].parts == (ToolResult("call_1_0", "weather", "sunny"),)
    assert (found.tools[0].name, found.think, found.keep_alive, found.stream) == ("weather", "on", 300, False)
    prompt = serve.read_generate(
        GenerateRequest(model="m", prompt="x", stream=False).model_dump_json(exclude_none=True).encode()
    )
    assert isinstance(prompt, Ask)
    assert prompt.stream is False
