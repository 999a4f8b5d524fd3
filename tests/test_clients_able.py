"""The helpers of the official SDKs, Python and JavaScript, by every way: typed results, tool runners, two calls at once: M5."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.faulty import Peer, chunk, chunked_head
from tests.serving import ROOT, Served, serving
from tests.telling import stories
from tests.test_clients_fail import Upstream
from tests.test_clients_trip import ANNA, ANNA_ASKED, RED, Person
from tests.test_cuts import Recorded
from tests.ways import WAYS, four_ways

PARIS, SUNNY, IS_RED = "The capital of France is Paris.", "The result is sunny.", "The image is red."
ABLE: dict[str, Any] = {
    "chatParse": ANNA,
    "chatImage": IS_RED,
    "responsesParse": ANNA,
    "messagesParse": ANNA,
    "messagesRunner": [SUNNY, SUNNY],
    "messagesImage": IS_RED,
    "nativeTools": ["get_weather", SUNNY],
    "nativeFormat": [ANNA, ANNA],
    "nativeThink": ["I must add 7 and 8.", "7 + 8 = 15"],
    "nativeImage": [IS_RED, IS_RED],
    "nativeAbort": "AbortError",
}
TWICE = """
listeners: [{{port: 0}}]
backends:
  o: {{type: openai, url: "http://127.0.0.1:{port}", models: [two]}}
  l: {{type: ollama, url: "http://127.0.0.1:{port}", models: [two]}}
  c: {{type: anthropic, url: "http://127.0.0.1:{port}", models: [two]}}
"""
BEHIND = ["o/two", "l/two", "c/two"]
(TWO,) = (story for story in stories() if story.name == "two_tool_calls")
CALLS = [("f", {"x": 1}), ("g", {})]
every_way = pytest.mark.parametrize("model", WAYS)
behind = pytest.mark.parametrize("model", BEHIND)
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")


class Twice(Upstream):
    """Calls two tools in one answer; a fake, as the demo model makes one call at a time."""

    async def _script(self, peer: Peer) -> None:
        request = await peer.request()
        kind = "application/x-ndjson" if request.path.startswith("/api/") else "text/event-stream"
        await peer.send(chunked_head(kind), chunk(Recorded(TWO, request.path).whole), chunk(b""))


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with four_ways() as (gateway, _):
        yield gateway


@pytest.fixture(scope="module")
def twice() -> Iterator[Served]:
    with Twice() as fake, serving(TWICE.format(port=fake.port)) as gateway:
        yield gateway


def node(script: str, *arguments: str) -> Any:
    command = ["node", str(ROOT / "tests" / "js" / script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@needs_node
def test_m5_helpers_in_javascript(gateway: Served) -> None:
    told = node("able.mjs", gateway.url, RED, *WAYS)
    for model in WAYS:
        assert told[model] == ABLE, model


@every_way
def test_m5_anthropics_parse_and_tool_runner(gateway: Served, model: str) -> None:
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where
        """
        return "sunny" if city == "Paris" else "unknown"

    cold: Any = {"extra_body": {"temperature": 0}, "max_tokens": 200, "model": model}
    with anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": ANNA_ASKED}]
        parsed = client.messages.parse(messages=asked, output_format=Person, **cold)
        assert parsed.parsed_output == Person(**ANNA)
        asked = [{"role": "user", "content": "What is the weather in Paris?"}]
        for stream in (False, True):
            runner = client.beta.messages.tool_runner(messages=asked, tools=[get_weather], stream=stream, **cold)
            end = runner.until_done()
            assert end is not None
            assert end.content[0].text == SUNNY


@every_way
def test_m5_ollamas_chat_with_a_python_function(gateway: Served, model: str) -> None:
    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where
        """
        return "sunny" if city == "Paris" else "unknown"

    client = ollama.Client(gateway.url)
    asked: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    calls = []
    for part in client.chat(model, asked, tools=[get_weather], options={"temperature": 0}, stream=True):
        calls += part.message.tool_calls or []
    (call,) = calls
    told = get_weather(**call.function.arguments)
    asked += [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_name": "get_weather", "content": told}]
    assert client.chat(model, asked, tools=[get_weather], options={"temperature": 0}).message.content == SUNNY


# Two calls in one answer


@behind
def test_m5_two_calls_of_openais_helpers(twice: Served, model: str) -> None:
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]
    asked: Any = [{"role": "user", "content": "Both!"}]
    with openai.OpenAI(base_url=f"{twice.url}/v1", api_key="none", max_retries=0) as client:
        with client.chat.completions.stream(model=model, messages=asked, tools=tools) as stream:
            done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
            choice = stream.get_final_completion().choices[0]
        calls = choice.message.tool_calls or []
        assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == CALLS
        assert [(event.index, event.name, json.loads(event.arguments)) for event in done] == [
            (0, *CALLS[0]),
            (1, *CALLS[1]),
        ]
        assert (choice.finish_reason, choice.message.content, len({call.id for call in calls})) == (
            "tool_calls",
            "Both.",
            2,
        )
        flat: Any = [{"type": "function", "name": name, "parameters": {}, "strict": False} for name in "fg"]
        with client.responses.stream(model=model, input="Both!", tools=flat, store=False) as events:
            for _ in events:
                pass
            output = events.get_final_response().output
    found = [item for item in output if item.type == "function_call"]
    assert [(item.name, json.loads(item.arguments)) for item in found] == CALLS
    assert len({item.call_id for item in found}) == 2


@behind
def test_m5_two_calls_of_anthropics_and_ollamas_streams(twice: Served, model: str) -> None:
    asked: Any = [{"role": "user", "content": "Both!"}]
    own: Any = [{"name": name, "input_schema": {"type": "object"}} for name in "fg"]
    with (
        anthropic.Anthropic(base_url=twice.url, api_key="none", max_retries=0) as client,
        client.messages.stream(model=model, messages=asked, tools=own, max_tokens=50) as stream,
    ):
        message = stream.get_final_message()
    blocks: Any = [block for block in message.content if block.type == "tool_use"]
    assert [(block.name, block.input) for block in blocks] == CALLS
    assert (message.stop_reason, len({block.id for block in blocks})) == ("tool_use", 2)
    tools: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fg"]
    parts = list(ollama.Client(twice.url).chat(model, asked, tools=tools, stream=True))
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    assert [(call.name, dict(call.arguments)) for call in calls] == CALLS


@needs_node
def test_m5_two_calls_in_javascript(twice: Served) -> None:
    told = node("calls.mjs", twice.url, *BEHIND)
    for model in BEHIND:
        for way, calls in told[model].items():
            assert [(name, arguments) for name, arguments, _ in calls] == CALLS, (model, way)
            assert len({call[2] for call in calls}) == (1 if way == "native" else 2), (model, way)
