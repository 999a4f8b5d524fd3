"""Anthropic's messages, their tokens counted, and models."""

from __future__ import annotations

import json
from typing import Any

from tests.matrix.checks import check_chance, check_flow, check_unknown_model, joined, tokens_of_france
from tests.matrix.questions import (
    ADA,
    ADD,
    ANSWER,
    BLUE,
    COLOUR,
    FIFTEEN,
    FLAT,
    FRANCE,
    I_AM_ADA,
    ITALY,
    LINK,
    NEXT_SUM,
    NICE,
    PARIS,
    PARIS_CALL,
    PIP,
    RED,
    REPEAT,
    RESULT,
    ROME,
    SEVEN,
    SUM,
    SUNNY,
    THOUGHT,
    TOOLS,
    UNICODE,
    WEATHER,
    WHO,
)
from tests.matrix.rows import Body, Rows, Way, right

row = Rows("anthropic")

CREATE = "messages.create"
COUNT = "messages.count_tokens"


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def assistant(content: Any) -> Body:
    return {"role": "assistant", "content": content}


def tool(name: str) -> Body:
    return {"name": name, "description": name, "input_schema": TOOLS[name]}


def picture(data: str) -> Body:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def text(words: str) -> Body:
    return {"type": "text", "text": words}


def _body(turns: tuple[Any, ...], more: Body) -> Body:
    messages = [user(turn) if isinstance(turn, str) else turn for turn in turns]
    return {"messages": messages, "temperature": 0, "max_tokens": 200, **more}


def ask(way: Way, *turns: Any, **more: Any) -> Body:
    """The whole reply to a conversation, whose turns are a user's where they are mere texts."""
    return way.call(CREATE, model=way.model(), **_body(turns, more))


def said(way: Way, *turns: Any, **more: Any) -> str:
    """The text of the answer."""
    return "".join(block["text"] for block in ask(way, *turns, **more)["content"] if block["type"] == "text")


def streamed(way: Way, *turns: Any, **more: Any) -> list[Body]:
    records = way.stream(CREATE, model=way.model(), **_body(turns, more))
    right([records[0]["type"], *(record["type"] for record in records[-2:])],
          ["message_start", "message_delta", "message_stop"], "the frame")  # fmt: skip
    return records


def deltas(records: list[Body], kind: str, field: str) -> list[str]:
    """What a stream's records of one kind add."""
    found = [record["delta"] for record in records if record["type"] == "content_block_delta"]
    return [delta[field] for delta in found if delta["type"] == kind]


def called(reply: Body) -> tuple[str, Body]:
    """The one call of an answer."""
    calls = [block for block in reply["content"] if block["type"] == "tool_use"]
    assert len(calls) == 1, f"{len(calls)} calls in {reply['content']}"
    right(reply["stop_reason"], "tool_use", "stop_reason")
    assert calls[0]["id"], "a call without an id"
    return calls[0]["name"], calls[0]["input"]


def weather(way: Way, question: str = WEATHER, **more: Any) -> tuple[str, Body]:
    return called(ask(way, question, tools=[tool("get_weather"), tool("add_numbers")], **more))


@row("messages")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE)
    right([block["text"] for block in reply["content"]], [way.says(PARIS, FRANCE)])
    right((reply["stop_reason"], reply["type"], reply["model"]), ("end_turn", "message", way.answers_as))


@row("messages, streamed")
def _(way: Way) -> Any:
    records = streamed(way, FRANCE)
    texts = deltas(records, "text_delta", "text")
    right(joined(texts), way.says(PARIS, FRANCE))
    right(records[-2]["delta"]["stop_reason"], "end_turn", "stop_reason")


@row("system prompt", "system")
def _(way: Way) -> Any:
    right(said(way, WHO), way.says(PIP, WHO), "without it")
    right(said(way, WHO, system=I_AM_ADA), ADA)


@row("system prompt of blocks", "system")
def _(way: Way) -> Any:
    right(said(way, WHO, system=[text("You are a helpful assistant."), text(I_AM_ADA)]), ADA)


@row("several turns")
def _(way: Way) -> Any:
    right(said(way, I_AM_ADA, assistant(NICE), WHO), way.says(ADA, WHO))


@row("unicode")
def _(way: Way) -> Any:
    right(said(way, REPEAT), way.says(UNICODE, REPEAT))
    right("".join(deltas(streamed(way, REPEAT), "text_delta", "text")), way.says(UNICODE, REPEAT), "streamed")


@row("tools", "tools")
def _(way: Way) -> Any:
    right(weather(way), PARIS_CALL)
    right(weather(way, ADD), ("add_numbers", {"a": 3, "b": 4}))
    right(said(way, FRANCE, tools=[tool("get_weather")]), PARIS, "where no tool is needed")


@row("tools, streamed", "tools")
def _(way: Way) -> Any:
    records = streamed(way, WEATHER, tools=[tool("get_weather"), tool("add_numbers")])
    starts = [record["content_block"] for record in records if record["type"] == "content_block_start"]
    right([block.get("name") for block in starts], ["get_weather"], "blocks")
    right(json.loads("".join(deltas(records, "input_json_delta", "partial_json"))), {"city": "Paris"})
    right(records[-2]["delta"]["stop_reason"], "tool_use", "stop_reason")
    check_flow(deltas(records, "input_json_delta", "partial_json"))


@row("tools: strict", "tools[].strict", words=("tool",))
def _(way: Way) -> Any:
    right(called(ask(way, WEATHER, tools=[{**tool("get_weather"), "strict": True}])), PARIS_CALL)


@row("tool_choice auto", "tools")
def _(way: Way) -> Any:
    right(weather(way, tool_choice={"type": "auto"}), PARIS_CALL)


@row("tool_choice any", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    right(said(way, FRANCE, tools=[tool("get_weather")]), PARIS, "without it")
    name, arguments = called(ask(way, FRANCE, tools=[tool("get_weather")], tool_choice={"type": "any"}))
    right((name, list(arguments)), ("get_weather", ["city"]))


@row("tool_choice of one tool", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    name, arguments = weather(way, tool_choice={"type": "tool", "name": "add_numbers"})
    right((name, sorted(arguments)), ("add_numbers", ["a", "b"]))


@row("tool_choice none", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    blocks = ask(way, WEATHER, tools=[tool("get_weather")], tool_choice={"type": "none"})["content"]
    right([block["type"] for block in blocks], ["text"], "blocks")


@row("disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use", words=("tool",))
def _(way: Way) -> Any:
    right(weather(way, tool_choice={"type": "auto", "disable_parallel_tool_use": True}), PARIS_CALL)


def calls_made(*ids: str) -> Body:
    return assistant([{"type": "tool_use", "id": id, "name": "get_weather", "input": {"city": "Paris"}} for id in ids])


def results(*ids: str, **more: Any) -> Body:
    return user([{"type": "tool_result", "tool_use_id": id, "content": SUNNY, **more} for id in ids])


@row("tool's result", "tools")
def _(way: Way) -> Any:
    reply = ask(way, WEATHER, calls_made("toolu_1"), results("toolu_1"), tools=[tool("get_weather")])
    right(reply["content"][0]["text"], RESULT)
    return reply["usage"]["input_tokens"] + reply["usage"]["cache_read_input_tokens"]


@row("two tools' results", "tools")
def _(way: Way) -> Any:
    def tokens(*ids: str) -> tuple[int, str]:
        reply = ask(way, WEATHER, calls_made(*ids), results(*ids), tools=[tool("get_weather")])
        usage = reply["usage"]
        return usage["input_tokens"] + usage["cache_read_input_tokens"], reply["content"][0]["text"]

    one, two = tokens("toolu_1"), tokens("toolu_1", "toolu_2")
    assert two[0] > one[0] + 10, "the second call is not in the prompt"
    return two


@row("tool's failure", "messages[].content[].is_error", words=("tool",))
def _(way: Way) -> Any:
    """Pip copies a tool's text into its answer, and so the failure must be in it, or at least the text."""
    answer = said(way, WEATHER, calls_made("toolu_1"), results("toolu_1", is_error=True), tools=[tool("get_weather")])
    assert SUNNY in answer, f"the result is not in {answer!r}"
    return answer


@row("image", "messages[].content[].source", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user([picture(RED), text(COLOUR)])), "The image is red.")
    right(said(way, user([picture(BLUE), text(COLOUR)])), "The image is blue.")


@row("image behind the text", "messages[].content[]", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user([text(COLOUR), picture(BLUE)])), "The image is blue.")


def total(usage: Body) -> int:
    return int(usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0))


@row("two images", "messages[].content[].source", words=("image",))
def _(way: Way) -> Any:
    one = total(ask(way, user([picture(RED), text(COLOUR)]))["usage"])
    reply = ask(way, user([picture(RED), picture(RED), text(COLOUR)]))
    right(reply["content"][0]["text"], "The image is red.")
    assert total(reply["usage"]) > one + 3, "the second is not in the prompt"
    return total(reply["usage"])


@row("image by link", "messages[].content[].source.url", "messages[].content[].source", words=("image",))
def _(way: Way) -> Any:
    link = {"type": "image", "source": {"type": "url", "url": LINK}}
    right(said(way, user([link, text(COLOUR)])), "The image is red.")


def form() -> Body:
    return {"format": {"type": "json_schema", "schema": ANSWER}}


@row("output_config.format", "output_config.format", "output_config", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(said(way, ITALY, output_config=form())), {"answer": ROME})


@row("output_config.format, streamed", "output_config.format", "output_config", words=("form",))
def _(way: Way) -> Any:
    texts = deltas(streamed(way, ITALY, output_config=form()), "text_delta", "text")
    right(json.loads(joined(texts)), {"answer": ROME})


def thoughts(way: Way, **more: Any) -> tuple[str, str]:
    blocks = ask(way, SUM, **more)["content"]
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    return thought.strip(), "".join(block["text"] for block in blocks if block["type"] == "text")


@row("thinking adaptive", "thinking")
def _(way: Way) -> Any:
    right(thoughts(way, thinking={"type": "adaptive"}), (THOUGHT, FIFTEEN))


@row("thinking disabled", "thinking")
def _(way: Way) -> Any:
    right(thoughts(way, thinking={"type": "disabled"}), ("", way.says(FIFTEEN, SUM)))


@row("thinking within a budget", "thinking.budget_tokens")
def _(way: Way) -> Any:
    right(thoughts(way, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048), (THOUGHT, FIFTEEN))
    thought, _ = thoughts(way, thinking={"type": "enabled", "budget_tokens": 3})
    if way.honoured("thinking.budget_tokens"):
        assert thought != THOUGHT, "a budget of 3 tokens was not held"


@row("thinking with an effort", "output_config.effort", "thinking")
def _(way: Way) -> Any:
    right(thoughts(way, thinking={"type": "adaptive"}, output_config={"effort": "low"}), (THOUGHT, FIFTEEN))


@row("thinking, streamed", "thinking")
def _(way: Way) -> Any:
    records = streamed(way, SUM, thinking={"type": "adaptive"})
    right("".join(deltas(records, "thinking_delta", "thinking")).strip(), THOUGHT)
    right("".join(deltas(records, "text_delta", "text")), FIFTEEN)


@row("thoughts of earlier turns", "messages[].content[].thinking")
def _(way: Way) -> Any:
    thought = {"type": "thinking", "thinking": THOUGHT, "signature": ""}
    without = total(ask(way, SUM, assistant(FIFTEEN), NEXT_SUM)["usage"])
    reply = ask(way, SUM, assistant([thought, text(FIFTEEN)]), NEXT_SUM)
    right(reply["content"][0]["text"], SEVEN)
    assert total(reply["usage"]) > without + 5, "they are not in the prompt"
    return total(reply["usage"])


@row("thoughts that somebody signed", "messages[].content[].signature")
def _(way: Way) -> Any:
    thought = {"type": "thinking", "thinking": THOUGHT, "signature": "c2lnbmVk"}
    right(said(way, SUM, assistant([thought, text(FIFTEEN)]), NEXT_SUM), way.says(SEVEN, NEXT_SUM))


@row("stop_sequences", "stop_sequences")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, stop_sequences=[" is"])
    right(reply["content"][0]["text"], way.says(PARIS, FRANCE).partition(" is")[0])
    told = reply["stop_reason"], reply.get("stop_sequence")
    if way.honoured("stop_sequences"):
        right(told, ("stop_sequence", " is"))
    else:
        right(told, ("end_turn", None))
    return told


@row("max_tokens", "max_tokens")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, max_tokens=2)
    right((reply["stop_reason"], reply["usage"]["output_tokens"]), ("max_tokens", 2))
    right(reply["content"][0]["text"], " ".join(way.says(PARIS, FRANCE).split()[:2]))


@row("temperature", "temperature", chance=True)
def _(way: Way) -> Any:
    return check_chance(said(way, FLAT, max_tokens=30), lambda: said(way, FLAT, max_tokens=30, temperature=1))


@row("top_p", "top_p")
def _(way: Way) -> Any:
    cold = said(way, FLAT)
    right({said(way, FLAT, temperature=1, top_p=0.001) for _ in range(4)}, {cold}, "almost nothing to choose from")


@row("top_k", "top_k")
def _(way: Way) -> Any:
    cold = said(way, FLAT)
    right({said(way, FLAT, temperature=1, top_k=1) for _ in range(4)}, {cold}, "nothing to choose from")


@row("usage")
def _(way: Way) -> Any:
    usage = ask(way, FRANCE)["usage"]
    told = total(usage), usage["output_tokens"]
    right(told, tokens_of_france(way), "tokens in and out")
    last = streamed(way, FRANCE)[-2]["usage"]
    right((total(last), last["output_tokens"]), told, "streamed")
    return told


@row("count_tokens", words=("count",))
def _(way: Way) -> Any:
    told = way.call(COUNT, model=way.model(), messages=[user(FRANCE)])["input_tokens"]
    right(told, 17)
    return told


@row("count_tokens: system, tools and a picture", words=("count", "image", "tool"))
def _(way: Way) -> Any:
    body = {"messages": [user([picture(RED), text(COLOUR)])], "system": I_AM_ADA, "tools": [tool("get_weather")]}
    told: int = way.call(COUNT, model=way.model(), **body)["input_tokens"]
    right(told, total(way.call(CREATE, model=way.model(), max_tokens=5, **body)["usage"]), "as many as are used")
    return told


@row("metadata", "metadata")
def _(way: Way) -> Any:
    right(said(way, FRANCE, metadata={"user_id": "ada"}), way.says(PARIS, FRANCE))


@row("cache_control", "messages[].content[].cache_control")
def _(way: Way) -> Any:
    marked = {**text(FRANCE), "cache_control": {"type": "ephemeral"}}
    right(said(way, user([marked])), way.says(PARIS, FRANCE))


@row("unknown field", "made_up")
def _(way: Way) -> Any:
    right(said(way, FRANCE, made_up=[1]), way.says(PARIS, FRANCE))


@row("unknown model")
def _(way: Way) -> Any:
    check_unknown_model(
        way, lambda name: way.call(CREATE, model=name, messages=[user(FRANCE)], max_tokens=5), "NotFoundError"
    )


@row("models")
def _(way: Way) -> Any:
    listed = [model["id"] for model in way.call("models.list")["data"]]
    assert {way.model(), way.model("embed")} <= set(listed), f"not among {listed}"
