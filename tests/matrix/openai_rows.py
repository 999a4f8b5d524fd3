"""OpenAI's chat completions, completions, embeddings and models."""

from __future__ import annotations

import json
from typing import Any

from tests.matrix.checks import (
    check_chance,
    check_flow,
    check_object,
    check_unknown_model,
    differs,
    joined,
    tokens_of_france,
)
from tests.matrix.questions import (
    ADA,
    ADD,
    ANNA,
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
    PERSON,
    PIP,
    RAMBLE,
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
from tests.matrix.tokens import token

row = Rows("openai")

CHAT = "chat.completions.create"


def user(content: Any) -> Body:
    return {"role": "user", "content": content}


def picture(data: str, **more: Any) -> Body:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", **more}}


def tool(name: str) -> Body:
    return {"type": "function", "function": {"name": name, "description": name, "parameters": TOOLS[name]}}


def ask(way: Way, *messages: Any, **more: Any) -> Body:
    """The whole reply to a conversation, whose turns are a user's where they are mere texts."""
    turns = [user(turn) if isinstance(turn, str) else turn for turn in messages]
    return way.call(CHAT, model=way.model(), messages=turns, **{"temperature": 0, "max_tokens": 200, **more})


def said(way: Way, *messages: Any, **more: Any) -> Any:
    """The text of the answer."""
    return ask(way, *messages, **more)["choices"][0]["message"]["content"]


def streamed(way: Way, *messages: Any, **more: Any) -> list[Body]:
    turns = [user(turn) if isinstance(turn, str) else turn for turn in messages]
    return way.stream(CHAT, model=way.model(), messages=turns, **{"temperature": 0, "max_tokens": 200, **more})


def pieces(chunks: list[Body], field: str = "content") -> list[str]:
    """What a stream's chunks add to a field of the message."""
    return [text for chunk in chunks for choice in chunk["choices"] if (text := choice["delta"].get(field))]


def ended(chunks: list[Body]) -> str:
    """Why the stream ended; it must say so once, in the end."""
    (reason,) = (
        choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice.get("finish_reason")
    )
    return str(reason)


def called(reply: Body) -> tuple[str, Body]:
    """The one call of an answer."""
    choice = reply["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    assert len(calls) == 1, f"{len(calls)} calls, and the text {choice['message']['content']!r}"
    right(choice["finish_reason"], "tool_calls", "finish_reason")
    assert calls[0]["id"], "a call without an id"
    return calls[0]["function"]["name"], json.loads(calls[0]["function"]["arguments"])


def weather(way: Way, question: str = WEATHER, **more: Any) -> tuple[str, Body]:
    return called(ask(way, question, tools=[tool("get_weather"), tool("add_numbers")], **more))


@row("chat")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE)
    choice = reply["choices"][0]
    right(choice["message"]["content"], way.says(PARIS, FRANCE))
    right((choice["finish_reason"], reply["object"], reply["model"]), ("stop", "chat.completion", way.answers_as))


@row("chat, streamed")
def _(way: Way) -> Any:
    chunks = streamed(way, FRANCE)
    texts = pieces(chunks)
    right(joined(texts), way.says(PARIS, FRANCE))
    right(ended(chunks), "stop", "finish_reason")
    right({chunk["object"] for chunk in chunks}, {"chat.completion.chunk"})


@row("system prompt", "messages[].role")
def _(way: Way) -> Any:
    right(said(way, WHO), way.says(PIP, WHO), "without it")
    right(said(way, {"role": "system", "content": I_AM_ADA}, WHO), ADA)


@row("developer's prompt", "messages[].role")
def _(way: Way) -> Any:
    right(said(way, {"role": "developer", "content": I_AM_ADA}, WHO), ADA)


@row("instructions amid the conversation", "messages[].role")
def _(way: Way) -> Any:
    right(said(way, FRANCE, {"role": "assistant", "content": PARIS}, {"role": "system", "content": I_AM_ADA}, WHO), ADA)


@row("several turns")
def _(way: Way) -> Any:
    right(said(way, I_AM_ADA, {"role": "assistant", "content": NICE}, WHO), way.says(ADA, WHO))


@row("speaker's name", "messages[].name")
def _(way: Way) -> Any:
    right(said(way, {**user(FRANCE), "name": "Ada"}), way.says(PARIS, FRANCE))


@row("unicode")
def _(way: Way) -> Any:
    right(said(way, REPEAT), way.says(UNICODE, REPEAT))
    right("".join(pieces(streamed(way, REPEAT))), way.says(UNICODE, REPEAT), "streamed")


@row("tools", "tools")
def _(way: Way) -> Any:
    right(weather(way), PARIS_CALL)
    right(weather(way, ADD), ("add_numbers", {"a": 3, "b": 4}))
    right(said(way, FRANCE, tools=[tool("get_weather")]), PARIS, "where no tool is needed")


@row("tools, streamed", "tools")
def _(way: Way) -> Any:
    chunks = streamed(way, WEATHER, tools=[tool("get_weather"), tool("add_numbers")])
    calls = [
        call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls") or ()
    ]
    right({call["index"] for call in calls}, {0}, "index")
    name = "".join(call["function"].get("name") or "" for call in calls)
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    right((name, json.loads(arguments)), PARIS_CALL)
    assert [call["id"] for call in calls if call.get("id")], "no id"
    right(ended(chunks), "tool_calls", "finish_reason")
    check_flow(call["function"].get("arguments") or "" for call in calls)


@row("tools: strict", "tools[].function.strict", words=("tool",))
def _(way: Way) -> Any:
    strict = tool("get_weather")
    strict["function"]["strict"] = True
    right(called(ask(way, WEATHER, tools=[strict])), PARIS_CALL)


@row("tool_choice auto", "tools")
def _(way: Way) -> Any:
    right(weather(way, tool_choice="auto"), PARIS_CALL)


@row("tool_choice required", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    right(said(way, FRANCE, tools=[tool("get_weather")]), PARIS, "without it")
    name, arguments = called(ask(way, FRANCE, tools=[tool("get_weather")], tool_choice="required"))
    right((name, list(arguments)), ("get_weather", ["city"]))


@row("tool_choice named", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    name, arguments = weather(way, tool_choice={"type": "function", "function": {"name": "add_numbers"}})
    right((name, sorted(arguments)), ("add_numbers", ["a", "b"]))


@row("tool_choice none", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    message = ask(way, WEATHER, tools=[tool("get_weather")], tool_choice="none")["choices"][0]["message"]
    assert not message.get("tool_calls"), "a tool was called"
    assert message["content"], "no text either"


@row("parallel_tool_calls on", words=("tool",))
def _(way: Way) -> Any:
    right(weather(way, parallel_tool_calls=True), PARIS_CALL)


@row("parallel_tool_calls off", "parallel_tool_calls", words=("tool",))
def _(way: Way) -> Any:
    right(weather(way, parallel_tool_calls=False), PARIS_CALL)


def call_made(*ids: str) -> Body:
    function = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


@row("tool's result", "tools")
def _(way: Way) -> Any:
    result = {"role": "tool", "tool_call_id": "call_1", "content": SUNNY}
    reply = ask(way, WEATHER, call_made("call_1"), result, tools=[tool("get_weather")])
    right(reply["choices"][0]["message"]["content"], RESULT)
    return reply["usage"]["prompt_tokens"]


@row("two tools' results", "tools")
def _(way: Way) -> Any:
    results = [{"role": "tool", "tool_call_id": id, "content": SUNNY} for id in ("call_1", "call_2")]
    one = ask(way, WEATHER, call_made("call_1"), results[0], tools=[tool("get_weather")])
    two = ask(way, WEATHER, call_made("call_1", "call_2"), *results, tools=[tool("get_weather")])
    assert two["usage"]["prompt_tokens"] > one["usage"]["prompt_tokens"] + 10, "the second call is not in the prompt"
    return two["choices"][0]["message"]["content"], two["usage"]["prompt_tokens"]


@row("legacy functions", "functions", words=("tool",))
def _(way: Way) -> Any:
    choice = ask(way, WEATHER, functions=[tool("get_weather")["function"]])["choices"][0]
    right(choice["finish_reason"], "function_call", "finish_reason")
    call = choice["message"]["function_call"]
    right((call["name"], json.loads(call["arguments"])), PARIS_CALL)
    back = [{"role": "assistant", "content": None, "function_call": call}]
    back.append({"role": "function", "name": "get_weather", "content": SUNNY})
    right(said(way, WEATHER, *back, functions=[tool("get_weather")["function"]]), RESULT)


@row("image", "messages[].content[].image_url", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user([picture(RED), {"type": "text", "text": COLOUR}])), "The image is red.")
    right(said(way, user([picture(BLUE), {"type": "text", "text": COLOUR}])), "The image is blue.")


@row("image behind the text", "messages[].content[]", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user([{"type": "text", "text": COLOUR}, picture(BLUE)])), "The image is blue.")


@row("two images", "messages[].content[].image_url", words=("image",))
def _(way: Way) -> Any:
    texts = {"type": "text", "text": COLOUR}
    one = ask(way, user([picture(RED), texts]))["usage"]["prompt_tokens"]
    reply = ask(way, user([picture(RED), picture(RED), texts]))
    right(reply["choices"][0]["message"]["content"], "The image is red.")
    assert reply["usage"]["prompt_tokens"] > one + 3, "the second is not in the prompt"
    return reply["usage"]["prompt_tokens"]


@row("image by link", "messages[].content[].image_url.url", words=("image",))
def _(way: Way) -> Any:
    content = [{"type": "image_url", "image_url": {"url": LINK}}, {"type": "text", "text": COLOUR}]
    right(said(way, user(content)), "The image is red.")


@row("image's detail", "messages[].content[].image_url.detail", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user([picture(RED, detail="low"), {"type": "text", "text": COLOUR}])), "The image is red.")


@row("sound", "messages[].content[].input_audio", words=("audio", "sound"))
def _(way: Way) -> Any:
    """The demo model hears nothing: an answer would be made up."""
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF", "format": "wav"}}
    text = said(way, user([sound, {"type": "text", "text": "What do you hear?"}]))
    raise AssertionError(f"it heard {text!r}")


@row("json_object", "response_format")
def _(way: Way) -> Any:
    right(json.loads(said(way, PERSON, response_format={"type": "json_object"})), ANNA)
    return check_object(said(way, ITALY, response_format={"type": "json_object"}))


def schema(**more: Any) -> Body:
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": ANSWER, **more}}


@row("json_schema", "response_format")
def _(way: Way) -> Any:
    right(json.loads(said(way, ITALY, response_format=schema())), {"answer": ROME})


@row("json_schema, streamed", "response_format")
def _(way: Way) -> Any:
    texts = pieces(streamed(way, ITALY, response_format=schema()))
    right(json.loads(joined(texts)), {"answer": ROME})


@row("json_schema, strict and named", "response_format.json_schema.name", "response_format.json_schema.strict",
     words=("form",))  # fmt: skip
def _(way: Way) -> Any:
    form = schema(name="capital", strict=True)
    right(json.loads(said(way, ITALY, response_format=form)), {"answer": ROME})


def thoughts(way: Way, effort: str) -> tuple[str, str]:
    message = ask(way, SUM, reasoning_effort=effort)["choices"][0]["message"]
    return (message.get("reasoning_content") or "").strip(), message["content"]


@row("reasoning_effort none", "reasoning_effort")
def _(way: Way) -> Any:
    right(thoughts(way, "none"), ("", way.says(FIFTEEN, SUM)))


@row("reasoning_effort", "reasoning_effort")
def _(way: Way) -> Any:
    for level in ("low", "high"):
        right(thoughts(way, level), (THOUGHT, FIFTEEN), level)


@row("reasoning, streamed", "reasoning_effort")
def _(way: Way) -> Any:
    chunks = streamed(way, SUM, reasoning_effort="medium")
    right("".join(pieces(chunks, "reasoning_content")).strip(), THOUGHT)
    right("".join(pieces(chunks)), FIFTEEN)


@row("reasoning within a budget", "reasoning.max_tokens")
def _(way: Way) -> Any:
    message = ask(way, SUM, reasoning={"max_tokens": 3})["choices"][0]["message"]
    thought = (message.get("reasoning_content") or "").strip()
    assert thought, "no thoughts"
    assert THOUGHT.startswith(thought), f"other thoughts: {thought!r}"
    if way.honoured("reasoning.max_tokens"):
        assert thought != THOUGHT, "the budget was not held"


@row("thoughts of earlier turns", "messages[].reasoning_content")
def _(way: Way) -> Any:
    earlier = {"role": "assistant", "content": FIFTEEN}
    without = ask(way, SUM, earlier, NEXT_SUM)["usage"]["prompt_tokens"]
    reply = ask(way, SUM, {**earlier, "reasoning_content": THOUGHT}, NEXT_SUM)
    right(reply["choices"][0]["message"]["content"], SEVEN)
    assert reply["usage"]["prompt_tokens"] > without + 5, "they are not in the prompt"
    return reply["usage"]["prompt_tokens"]


def check_logprobs(content: list[Body], text: str, top: int) -> list[str]:
    right("".join(entry["token"] for entry in content), text)
    for entry in content:
        assert entry["logprob"] <= 0, f"{entry['token']!r} has {entry['logprob']}"
        right(len(entry.get("top_logprobs") or ()), top, "top_logprobs")
    return [entry["token"] for entry in content]


@row("logprobs", "logprobs", words=("log probabilities",))
def _(way: Way) -> Any:
    choice = ask(way, FRANCE, logprobs=True)["choices"][0]
    assert choice["logprobs"], "none came"
    return check_logprobs(choice["logprobs"]["content"], PARIS, 0)


@row("top_logprobs", "top_logprobs", "logprobs", words=("log probabilities",))
def _(way: Way) -> Any:
    choice = ask(way, FRANCE, logprobs=True, top_logprobs=3)["choices"][0]
    assert choice["logprobs"], "none came"
    told = check_logprobs(choice["logprobs"]["content"], PARIS, 3)
    return told, [[top["token"] for top in entry["top_logprobs"]][:2] for entry in choice["logprobs"]["content"][:1]]


@row("logprobs, streamed", "logprobs", words=("log probabilities",))
def _(way: Way) -> Any:
    choices = [choice for chunk in streamed(way, FRANCE, logprobs=True, top_logprobs=2) for choice in chunk["choices"]]
    content = [entry for choice in choices if choice.get("logprobs") for entry in choice["logprobs"]["content"]]
    return check_logprobs(content, PARIS, 2)


@row("stop", "stop")
def _(way: Way) -> Any:
    choice = ask(way, FRANCE, stop=[" is"])["choices"][0]
    right(choice["message"]["content"], way.says(PARIS, FRANCE).partition(" is")[0])
    right(choice["finish_reason"], "stop", "finish_reason")


@row("max_tokens", "max_tokens")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, max_tokens=2)
    choice = reply["choices"][0]
    right((choice["finish_reason"], reply["usage"]["completion_tokens"]), ("length", 2))
    right(choice["message"]["content"], " ".join(way.says(PARIS, FRANCE).split()[:2]))


@row("max_completion_tokens", "max_completion_tokens")
def _(way: Way) -> Any:
    reply = way.call(CHAT, model=way.model(), messages=[user(FRANCE)], temperature=0, max_completion_tokens=2)
    right((reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]), ("length", 2))


@row("temperature", "temperature", chance=True)
def _(way: Way) -> Any:
    return check_chance(said(way, FLAT, max_tokens=30), lambda: said(way, FLAT, max_tokens=30, temperature=1))


@row("seed", "seed")
def _(way: Way) -> Any:
    first, again, other = (said(way, FLAT, max_tokens=30, temperature=1, seed=seed) for seed in (5, 5, 7))
    right(again, first, "the same seed")
    assert other != first, f"another seed gives the same: {first!r}"
    return first, other


@row("top_p", "top_p")
def _(way: Way) -> Any:
    right(said(way, FLAT, temperature=1, seed=5, top_p=0.001), said(way, FLAT), "almost nothing to choose from")


@row("top_k, of llama.cpp", "top_k")
def _(way: Way) -> Any:
    right(said(way, FLAT, temperature=1, seed=5, top_k=1), said(way, FLAT), "nothing to choose from")


@row("min_p, of llama.cpp", "min_p")
def _(way: Way) -> Any:
    right(said(way, FLAT, temperature=1, seed=5, min_p=1), said(way, FLAT), "nothing to choose from")


def penalty(way: Way, **said_: Any) -> Any:
    return differs(said(way, RAMBLE, max_tokens=40, **said_), said(way, RAMBLE, max_tokens=40))


@row("frequency_penalty", "frequency_penalty")
def _(way: Way) -> Any:
    return penalty(way, frequency_penalty=2)


@row("presence_penalty", "presence_penalty")
def _(way: Way) -> Any:
    return penalty(way, presence_penalty=2)


@row("repeat_penalty, of llama.cpp", "repeat_penalty")
def _(way: Way) -> Any:
    return penalty(way, repeat_penalty=2.0)


@row("logit_bias", "logit_bias")
def _(way: Way) -> Any:
    text = said(way, FRANCE, logit_bias={str(token("The")): -100})
    assert not text.startswith("The"), f"the forbidden token came: {text!r}"
    return text


@row("n")
def _(way: Way) -> Any:
    choices = ask(way, FRANCE, n=2)["choices"]
    right([choice["index"] for choice in choices], [0, 1], "index")
    right([choice["message"]["content"] for choice in choices], [way.says(PARIS, FRANCE)] * 2)


@row("n, streamed")
def _(way: Way) -> Any:
    texts = ["", ""]
    for chunk in streamed(way, FRANCE, n=2):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    right(texts, [way.says(PARIS, FRANCE)] * 2)


def check_usage(way: Way, usage: Body) -> tuple[int, int]:
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    right(usage["total_tokens"], prompt + completion, "total_tokens")
    right((prompt, completion), tokens_of_france(way), "tokens in and out")
    return prompt, completion


@row("usage")
def _(way: Way) -> Any:
    return check_usage(way, ask(way, FRANCE)["usage"])


@row("usage, streamed")
def _(way: Way) -> Any:
    chunks = streamed(way, FRANCE, stream_options={"include_usage": True})
    right(chunks[-1]["choices"], [], "choices of the last chunk")
    return check_usage(way, chunks[-1]["usage"])


@row("a server's own field", "grammar")
def _(way: Way) -> Any:
    right(said(way, FRANCE, grammar='root ::= "yes"'), "yes")


@row("unknown field", "made_up")
def _(way: Way) -> Any:
    right(said(way, FRANCE, made_up=[1]), way.says(PARIS, FRANCE))


@row("unknown model")
def _(way: Way) -> Any:
    check_unknown_model(way, lambda name: way.call(CHAT, model=name, messages=[user(FRANCE)]), "NotFoundError")


@row("models")
def _(way: Way) -> Any:
    listed = [model["id"] for model in way.call("models.list")["data"]]
    assert {way.model(), way.model("embed")} <= set(listed), f"not among {listed}"
