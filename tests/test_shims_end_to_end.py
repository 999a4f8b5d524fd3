"""Shims, thoughts amid text and forced calls with the official clients and the real demo model: M3, M4.

Gateway A has the model inside, told of tools in its prompt only; it reaches gateway B in every dialect, for which B's model
is one without tools, and B's echo, which writes into its text whatever thoughts it is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.serving import Served, serving
from tests.ways import INSIDE

BEHIND = """
  o: {{type: openai, url: "{url}"}}
  l: {{type: ollama, url: "{url}"}}
  a: {{type: anthropic, url: "{url}"}}
models:
  - {{id: inside, backend: local, name: pip, file: pip.gguf, slots: 4, thinking: off, shims: [tools]}}
  - {{id: shim-openai, backend: o, name: pip, shims: [tools]}}
  - {{id: shim-ollama, backend: l, name: pip, shims: [tools]}}
  - {{id: shim-anthropic, backend: a, name: pip, shims: [tools]}}
  - {{id: no-system, backend: o, name: demo/echo, shims: [system, tools]}}
  - {{id: pip-ollama, backend: l, name: pip}}
  - {{id: thinker, backend: o, name: demo/echo, inline_thinking: true}}
  - {{id: deep, backend: l, name: demo/echo, inline_thinking: opened}}
"""
WAYS = ["inside", "shim-openai", "shim-ollama", "shim-anthropic"]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
WEATHER = {"name": "get_weather", "description": "Weather", "parameters": CITY}
ADD = {"name": "add_numbers", "description": "Add two numbers", "parameters": NUMBERS}
TOOLS: Any = [{"type": "function", "function": WEATHER}, {"type": "function", "function": ADD}]
ANTHROPIC_TOOLS: Any = [
    {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
    for tool in (WEATHER, ADD)
]
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
PARIS = ("get_weather", {"city": "Paris"})
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
THOUGHT: Any = [{"role": "user", "content": "<think>\nI must add.\n</think>\n\n7 + 8 = 15"}]
COLD = {"temperature": 0}

ways = pytest.mark.parametrize("model", WAYS)
either = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    echoing = INSIDE.replace("models:\n", "  demo: {type: echo}\nmodels:\n")
    with serving(echoing) as b:
        head, _, _ = INSIDE.partition("models:\n")
        with serving(head + BEHIND.format(url=b.url)) as a:
            yield a


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def messages(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, *, streamed: bool, **ask: Any) -> tuple[Any, list[tuple[str, Any]], str, int]:
    """Text, calls, finish reason, and in how many pieces the arguments came."""
    if not streamed:
        choice = client.chat.completions.create(**ask, **COLD).choices[0]
        made = choice.message.tool_calls or []
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in made]
        return choice.message.content, calls, choice.finish_reason, len(calls)
    text, reason, pieces, found = "", "", 0, []
    for chunk in client.chat.completions.create(stream=True, **ask, **COLD):
        delta = chunk.choices[0].delta
        text += delta.content or ""
        for call in delta.tool_calls or []:
            if call.index == len(found):
                found.append([call.function.name, ""])
            found[call.index][1] += call.function.arguments or ""
            pieces += 1
        reason = chunk.choices[0].finish_reason or reason
    return text or None, [(name, json.loads(arguments)) for name, arguments in found], reason, pieces


@ways
@either
def test_m3_prompted_tools_are_called_and_answered(client: openai.OpenAI, model: str, streamed: bool) -> None:
    text, calls, reason, pieces = chat(client, streamed=streamed, model=model, messages=ASKED, tools=TOOLS)
    assert (text, calls, reason) == (None, [PARIS], "tool_calls")
    assert not streamed or pieces > 2, "the arguments came in one piece"
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    told = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    answer = chat(client, streamed=streamed, model=model, messages=told, tools=TOOLS)
    assert answer[:3] == ("The result is sunny.", [], "stop")


@ways
@either
def test_m3_prompted_tools_need_not_be_called(client: openai.OpenAI, model: str, streamed: bool) -> None:
    hello: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    text, calls, reason, _ = chat(client, streamed=streamed, model=model, messages=hello, tools=TOOLS)
    assert (calls, reason) == ([], "stop")
    assert text
    assert text.startswith("Hello!")
    none = chat(client, streamed=streamed, model=model, messages=ASKED, tools=TOOLS, tool_choice="none")
    assert none[1:3] == ([], "stop")


@pytest.mark.parametrize("model", [*WAYS, "pip-ollama"])
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
@either
def test_m3_a_call_can_be_forced(client: openai.OpenAI, model: str, choice: Any, streamed: bool) -> None:
    ask = {"model": model, "messages": ASKED, "tools": TOOLS, "tool_choice": choice}
    assert chat(client, streamed=streamed, **ask)[:3] == (None, [PARIS], "tool_calls")


@pytest.mark.parametrize("model", [*WAYS, "pip-ollama"])
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}, {"type": "auto"}])
@either
def test_m3_anthropics_clients_get_their_calls(
    messages: anthropic.Anthropic, model: str, choice: Any, streamed: bool
) -> None:
    ask: Any = {"model": model, "messages": ASKED, "tools": ANTHROPIC_TOOLS, "tool_choice": choice, "max_tokens": 100}
    if streamed:
        with messages.messages.stream(**ask, extra_body=COLD) as stream:
            answer = stream.get_final_message()
    else:
        answer = messages.messages.create(**ask, extra_body=COLD)
    (call,) = answer.content
    assert (call.type, call.name, call.input, answer.stop_reason) == ("tool_use", *PARIS, "tool_use")
    assert answer.usage.output_tokens > 5


@ways
@either
def test_m3_ollamas_clients_get_their_calls(gateway: Served, model: str, streamed: bool) -> None:
    answer = ollama.Client(gateway.url).chat(model, ASKED, tools=TOOLS, options=COLD, stream=streamed)
    parts = list(answer) if streamed else [answer]
    calls = [call.function for part in parts for call in part.message.tool_calls or []]
    assert [(call.name, call.arguments) for call in calls] == [PARIS]
    assert parts[-1].done_reason == "stop"


@ways
@either
def test_m3_responses_have_their_calls_too(client: openai.OpenAI, model: str, streamed: bool) -> None:
    ask: Any = {"model": model, "input": ASKED, "tools": [{"type": "function", **WEATHER, "strict": False}], **COLD}
    if streamed:
        events = list(client.responses.create(stream=True, **ask))
        assert sum(event.type == "response.function_call_arguments.delta" for event in events) > 2
        answer = events[-1].response
    else:
        answer = client.responses.create(**ask)
    (call,) = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", *PARIS)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    again = client.responses.with_raw_response.create(
        **{**ask, "input": [result]}, previous_response_id=answer.id, extra_headers={"Dragoman-Report": "header"}
    )
    assert again.parse().output_text == "The result is sunny."
    report = json.loads(again.headers["dragoman-report"])
    assert report["approximated"]["input"] == "earlier calls and their results are told as text"


def test_m3_responses_tell_thoughts_amid_text_apart(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="thinker", input=THOUGHT)
    assert answer.output_text == "7 + 8 = 15"
    assert [item.type for item in answer.output] == ["reasoning", "message"]


def test_m4_the_report_says_what_is_done_instead(client: openai.OpenAI) -> None:
    def report(model: str, **more: Any) -> Any:
        answer = client.chat.completions.with_raw_response.create(
            model=model, messages=ASKED, tools=TOOLS, extra_headers={"Dragoman-Report": "header"}, **more, **COLD
        )
        return json.loads(answer.headers["dragoman-report"])

    told = report("shim-openai", parallel_tool_calls=False)
    assert told["approximated"] == {
        "tools": "told to the model in the prompt; calls are read from its text",
        "parallel_tool_calls": "told to the model in words, and no call after the first is passed on",
    }
    held = "the tools are told in the prompt, and the answer is held to the form of a call"
    assert report("shim-openai", tool_choice="required")["approximated"]["tool_choice"] == held
    assert report("pip-ollama", tool_choice=NAMED)["approximated"]["tool_choice"] == held
    assert report("pip-ollama")["approximated"] == {}


def test_m3_m4_instructions_are_told_in_the_users_turn(client: openai.OpenAI) -> None:
    """The echo shows what a model without a system role is told."""
    told: Any = [{"role": "system", "content": "Be brief."}, *ASKED]
    ask: Any = {"model": "no-system", "extra_headers": {"Dragoman-Report": "header"}}
    answer = client.chat.completions.with_raw_response.create(messages=told, **ask)
    assert answer.parse().choices[0].message.content == "Be brief.\n\nWhat is the weather in Paris?"
    assert json.loads(answer.headers["dragoman-report"])["approximated"] == {
        "messages[].role": "stands at the head of the first user message"
    }
    prompted = client.chat.completions.create(messages=told, tools=TOOLS, model="no-system").choices[0].message
    assert prompted.content is not None
    assert prompted.content.startswith("Be brief.\n\nYou can call functions.")
    assert prompted.content.endswith("comes to you between ")  # a result that a model makes up ends its answer


def test_m4_a_prompt_is_counted_with_the_tools_that_are_told_in_it(messages: anthropic.Anthropic) -> None:
    ask: Any = {"model": "inside", "messages": ASKED, "tools": ANTHROPIC_TOOLS}
    counted = messages.messages.count_tokens(**ask).input_tokens
    usage = messages.messages.create(**ask, max_tokens=100, extra_body=COLD).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert counted > messages.messages.count_tokens(model="inside", messages=ASKED).input_tokens + 50


def test_m4_a_prompted_models_lists_say_tools(gateway: Served) -> None:
    shown = ollama.Client(gateway.url).show("inside").capabilities
    assert shown is not None
    assert "tools" in shown


@either
def test_m3_thoughts_amid_text_come_in_each_dialects_own_field(
    gateway: Served, client: openai.OpenAI, messages: anthropic.Anthropic, streamed: bool
) -> None:
    thought, text = "I must add.", "7 + 8 = 15"
    if streamed:
        chunks = [chunk.choices[0].delta for chunk in
                  client.chat.completions.create(model="thinker", messages=THOUGHT, stream=True)]  # fmt: skip
        assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in chunks) == thought
        assert "".join(delta.content or "" for delta in chunks) == text
    else:
        message = client.chat.completions.create(model="thinker", messages=THOUGHT).choices[0].message
        assert (message.reasoning_content, message.content) == (thought, text)
    answer = ollama.Client(gateway.url).chat("thinker", THOUGHT, think=True, stream=streamed)
    parts = [part.message for part in (answer if streamed else [answer])]
    assert "".join(part.thinking or "" for part in parts) == thought
    assert "".join(part.content or "" for part in parts) == text
    ask: Any = {"model": "thinker", "messages": THOUGHT, "max_tokens": 100}
    for more, kinds in (
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ["thinking", "text"]),
        ({}, ["text"]),
    ):
        if streamed:
            with messages.messages.stream(**ask, **more) as stream:
                blocks = stream.get_final_message().content
        else:
            blocks = messages.messages.create(**ask, **more).content
        assert [block.type for block in blocks] == kinds
        assert blocks[-1].text == text


def test_m3_thoughts_that_nobody_wants_are_left_out(gateway: Served) -> None:
    client = ollama.Client(gateway.url)
    for model in ("thinker", "deep"):
        message = client.chat(model, THOUGHT, think=False).message
        assert (message.content, message.thinking) == ("7 + 8 = 15", None)
    begun: Any = [{"role": "user", "content": "so\n</think>\n\nyes"}]
    message = client.chat("deep", begun).message
    assert (message.content, message.thinking) == ("yes", "so")
