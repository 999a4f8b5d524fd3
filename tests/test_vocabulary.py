"""What clients say is known by its own name: wishes in many words, nested fields, and conversations that go on as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adapters.anthropic import vocabulary as anthropic_words
from adapters.anthropic.call import write_messages
from adapters.anthropic.serve import read_messages
from adapters.hybrid import vocabulary as hybrid_words
from adapters.lmstudio import vocabulary as lmstudio_words
from adapters.ollama import serve as ollama
from adapters.ollama import vocabulary as ollama_words
from adapters.ollama.call import write_chat as write_ollama
from adapters.openai import serve as openai
from adapters.openai import vocabulary as openai_words
from adapters.openai.call import write_chat
from backends.honours import TABLE
from canonical.budgets import BUDGETS, budget_of, level_of
from canonical.origin import MORE, NAMED, Origin, Vocabulary, top
from canonical.report import Honours, Report, report
from canonical.requests import Generate

VOCABULARIES: dict[str, Vocabulary] = {
    f"{module.__name__.split('.')[1]} {name.lower()}": words
    for module in (openai_words, ollama_words, anthropic_words, lmstudio_words, hybrid_words)
    for name, words in vars(module).items()
    if isinstance(words, Vocabulary)
}
TURN = [{"role": "user", "content": "Hi"}]


def chat(**more: Any) -> Generate:
    (request,) = openai.read_chat(json.dumps({"model": "m", "messages": TURN, **more}).encode()).requests
    return request


def told(request: Generate, column: str) -> Report:
    return report(request, Honours(TABLE[column], dialect=column))


def sent(request: Generate) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(write_chat(request, "other"))
    return written


@pytest.mark.parametrize("route", VOCABULARIES)
def test_a_vocabulary_names_only_what_it_knows(route: str) -> None:
    words = VOCABULARIES[route]
    assert {top(name) for names in words.names.values() for name in names} <= words.known
    assert words.inside.keys() <= words.known
    assert words.own | words.talk | words.merged <= words.known


def test_every_route_has_its_vocabulary() -> None:
    assert len(VOCABULARIES) == 10


# Wishes about thinking, in the words of five kinds of client: none is ever an error


@pytest.mark.parametrize(
    ("fields", "think", "budget", "lost"),
    [
        ({}, None, None, []),
        ({"reasoning_effort": "xhigh"}, "max", None, []),
        ({"reasoning_effort": "ultra"}, None, None, ["reasoning_effort"]),
        ({"reasoning_effort": [3]}, None, None, ["reasoning_effort"]),
        ({"reasoning_effort": None, "reasoning": {"effort": "low"}}, "low", None, []),
        ({"reasoning": {"max_tokens": 2000}}, "low", 2000, []),
        ({"reasoning": {"max_tokens": 20_000, "exclude": True}}, "high", 20_000, ["reasoning.exclude"]),
        ({"reasoning": {"max_tokens": 0}}, "off", None, []),
        ({"reasoning": {"max_tokens": -1}}, "on", None, []),
        ({"reasoning": {"enabled": False, "effort": "high"}}, "off", None, []),
        ({"reasoning": {"enabled": True}}, "on", None, []),
        ({"reasoning": {"summary": "auto"}}, None, None, ["reasoning.summary"]),
        ({"reasoning": "high"}, "high", None, []),
        ({"reasoning": [1]}, None, None, ["reasoning"]),
        ({"thinking": {"type": "enabled", "budget_tokens": 40_000}}, "max", 40_000, []),
        ({"thinking": {"type": "enabled"}}, "on", None, []),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "off", None, []),
        ({"thinking": {"type": "new"}}, None, None, ["thinking"]),
        ({"thinking_budget_tokens": 40_000}, "max", 40_000, []),
        ({"thinking_budget_tokens": "some"}, None, None, ["thinking_budget_tokens"]),
        ({"think": True}, "on", None, []),
        ({"think": False}, "off", None, []),
        ({"think": "medium"}, "medium", None, []),
        ({"think": "a lot"}, None, None, ["think"]),
        ({"reasoning_effort": "high", "think": False}, "high", None, ["think"]),
        ({"reasoning_effort": "none", "think": False}, "off", None, []),
    ],
    ids=str,
)
def test_a_wish_is_read_in_any_words_and_never_an_error(
    fields: dict[str, Any], think: str | None, budget: int | None, lost: list[str]
) -> None:
    request = chat(**fields)
    assert (request.think, request.think_budget) == (think, budget)
    assert [path for path in told(request, "llama_cpp").dropped if path in lost] == lost
    assert told(request, "openai").dropped == ()  # its own dialect may know more
    said = {name: value for name, value in fields.items() if value is not None}
    assert {name: sent(request).get(name) for name in said} == said


@pytest.mark.parametrize(
    ("fields", "stay", "lost"),
    [
        ({"keep_alive": "5m"}, 300.0, ()),
        ({"keep_alive": -1}, -1.0, ()),
        ({"ttl": 60}, 60.0, ()),
        ({"keep_alive": "5m", "ttl": 60}, 300.0, ()),
        ({"keep_alive": "soon"}, None, ("keep_alive",)),
        ({"keep_alive": [1], "ttl": 60}, 60.0, ("keep_alive",)),
    ],
    ids=str,
)
def test_clients_of_other_houses_say_how_long_a_model_stays(
    fields: dict[str, Any], stay: float | None, lost: tuple[str, ...]
) -> None:
    request = chat(**fields)
    assert request.keep_alive == stay
    assert told(request, "llama_cpp").dropped == lost
    assert {name: sent(request)[name] for name in fields} == fields


def test_a_budget_stays_exact_where_there_are_budgets_and_is_a_level_elsewhere() -> None:
    request = chat(reasoning={"max_tokens": 5000})
    assert json.loads(write_messages(request, "m", style="enabled"))["thinking"]["budget_tokens"] == 5000
    assert json.loads(write_messages(request, "m"))["output_config"] == {"effort": "medium"}
    assert json.loads(write_ollama(request, "m"))["think"] == "medium"
    assert set(told(request, "ollama").approximated) == {"reasoning.max_tokens"}
    thinking = {"type": "enabled", "budget_tokens": 5000}
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": TURN, "thinking": thinking}).encode()
    (other,) = read_messages(body).requests
    assert (other.think, other.think_budget) == ("medium", 5000)
    assert sent(other)["reasoning_effort"] == "medium"
    assert set(told(other, "openai").approximated) == {"thinking.budget_tokens"}
    assert told(other, "anthropic").approximated == {}
    assert json.loads(write_messages(other, "m"))["thinking"] == thinking


def test_a_level_and_its_budget_are_each_others() -> None:
    for level, _, tokens in BUDGETS:
        assert budget_of(level) == tokens
        assert level_of(tokens) == level
    assert budget_of("minimal") == budget_of("low")
    assert budget_of("on") == 8192


# Conversations as they came


PART = {"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}
PLAIN = [{"role": "user", "content": [PART], "x_id": 7}]


def test_what_needs_no_repair_goes_to_its_own_dialect_as_it_came() -> None:
    tools = [{"type": "function", "function": {"name": "f", "examples": [1]}, "cache_control": {}}]
    request = chat(messages=PLAIN, tools=tools, response_format={"type": "json_object", "x_style": "short"})
    body = sent(request)
    assert body["messages"] == PLAIN
    assert body["tools"] == tools
    assert body["response_format"]["x_style"] == "short"
    assert told(request, "openai").dropped == ()
    assert set(told(request, "llama_cpp").dropped) == {
        "messages[].content[].cache_control",
        "messages[].x_id",
        "tools[].function.examples",
        "response_format.x_style",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [*PLAIN, {"role": "developer", "content": "x"}]},
        {"messages": [*PLAIN, {"role": "assistant", "content": None}]},
        {"messages": [*PLAIN, {"role": "assistant"}]},
        {"messages": [*PLAIN, {"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
        {"messages": [*PLAIN, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}]},
        {
            "messages": [
                *PLAIN,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}],
                },
            ]
        },
        {"messages": [*PLAIN, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]},
        {"messages": [*PLAIN, {"role": "user", "content": [{"type": "image_url", "image_url": "https://e.org/a"}]}]},
        {"messages": PLAIN, "functions": [{"name": "f"}]},
        {"messages": PLAIN, "response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
        {
            "messages": PLAIN,
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        },
    ],
    ids=range(11),
)
def test_what_is_repaired_is_written_anew_and_its_losses_are_named(fields: dict[str, Any]) -> None:
    request = chat(**fields)
    assert not request.origin.verbatim
    assert "cache_control" not in json.dumps(sent(request)["messages"])
    assert {"messages[].content[].cache_control", "messages[].x_id"} <= set(told(request, "openai").dropped)


def test_ollama_to_ollama_keeps_what_only_it_knows() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}, "items": 1}
    messages = [{"role": "user", "content": "Hi", "new": 1}]
    body = {"model": "m", "messages": messages, "tools": [tool], "options": {"num_gpu": 3, "seed": 1}, "width": 5}

    def read(**more: Any) -> Generate:
        (request,) = ollama.read_chat(json.dumps({**body, **more}).encode()).requests  # type: ignore[union-attr]
        return request

    request = read()
    out = json.loads(write_ollama(request, "other"))
    assert out == {**body, "model": "other", "stream": True}
    assert told(request, "ollama").dropped == ()
    assert set(told(request, "anthropic").dropped) >= {"options.num_gpu", "width", "messages[].new", "tools[].items"}
    for mended in (
        [*messages, {"role": "developer", "content": "x"}],
        [*messages, {"role": "user", "images": ["data:image/png;base64,iVBORw0KGgo="]}],
    ):
        request = read(messages=mended)
        assert "new" not in json.loads(write_ollama(request, "other"))["messages"][0]
        assert told(request, "ollama").dropped == ("messages[].new", "tools[].items")
    request = read(tools=[{"type": "function", "function": {"name": "f", "parameters": {"properties": []}}}])
    assert not request.origin.verbatim


def test_an_odd_spelling_stays_at_home_and_is_named() -> None:
    body = json.dumps({"model": "m", "messages": TURN, "\u212aeep_alive": 5}, ensure_ascii=False).encode()
    (request,) = ollama.read_chat(body).requests  # type: ignore[union-attr]
    assert told(request, "ollama").dropped == ("\u212aeep_alive",)


def test_what_anthropics_clients_lose_elsewhere() -> None:
    fields = {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "server_tool_use", "id": "1", "name": "web_search"}]},
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "x", "citations": [1]}, {"type": "new_kind"}],
                    },
                    {"type": "search_result", "source": "https://e.org", "title": "t", "content": []},
                ],
            },
        ],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "output_config": {"effort": "high"},
        "metadata": {"user_id": "u"},
    }
    (request,) = read_messages(json.dumps(fields).encode()).requests
    assert set(told(request, "llama_cpp").dropped) == {
        "system[].cache_control",
        "messages[].content[].server_tool_use",
        "messages[].content[].content[].citations",
        "messages[].content[].content[].new_kind",
        "messages[].content[].source",
        "tools[].web_search_20250305",
        "output_config.effort",
        "metadata",
    }
    assert told(request, "anthropic").dropped == ()
    assert json.loads(write_messages(request, "m")) == {**fields, "stream": False}


# Bodies


def test_a_field_that_says_what_holds_anyway_is_no_loss() -> None:
    quiet = {
        "store": False,
        "service_tier": "auto",
        "metadata": {},
        "user": None,
        "stream_options": {"include_usage": True},
    }
    assert told(chat(**quiet), "llama_cpp").dropped == ()
    loud = {"store": True, "service_tier": "flex", "metadata": {"a": "b"}, "user": "me"}
    assert set(told(chat(**loud), "llama_cpp").dropped) == loud.keys()


def test_very_many_unknown_fields_end_in_dots() -> None:
    many = {f"field_{number}": 1 for number in range(NAMED + 5)}
    for request in (chat(**many), chat(messages=[{**TURN[0], **many}])):
        dropped = told(request, "llama_cpp").dropped
        assert len(dropped) == NAMED + 1
        assert dropped[-1] == MORE
        assert told(request, "openai").dropped == ()  # they all travel


def test_a_limit_of_nothing_is_no_limit_and_said_so() -> None:
    assert told(chat(max_tokens=0), "llama_cpp").dropped == ("max_tokens",)
    assert told(chat(max_completion_tokens=0), "openai").dropped == ("max_completion_tokens",)
    assert told(chat(max_tokens=-1), "openai").dropped == ()  # which means what happens


def test_without_a_vocabulary_nothing_travels_and_nothing_is_unknown() -> None:
    origin = Origin("openai", b'{"model":"evil","x":1}')
    assert origin.onward() == {}
    assert origin.unknown() == []
    assert Origin().fields() == {}


def test_of_two_spellings_the_one_that_is_read_is_named() -> None:
    assert told(chat(max_tokens=5), "llama_cpp").honoured == ("max_tokens",)
    assert told(chat(max_tokens=5, max_completion_tokens=6), "llama_cpp").honoured == ("max_completion_tokens",)
    assert told(chat(max_tokens=5, max_completion_tokens=None), "llama_cpp").honoured == ("max_tokens",)
