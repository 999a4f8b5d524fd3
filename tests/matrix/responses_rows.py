"""OpenAI's responses: the newer route, whose answers are kept."""

from __future__ import annotations

import json
from typing import Any

from tests.matrix.checks import check_chance, check_flow, check_object, check_unknown_model, joined, tokens_of_france
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
    NICE,
    PARIS,
    PARIS_CALL,
    PERSON,
    PIP,
    RED,
    REPEAT,
    RESULT,
    ROME,
    SUM,
    SUNNY,
    THOUGHT,
    TOOLS,
    UNICODE,
    WEATHER,
    WHO,
)
from tests.matrix.rows import Body, Refused, Rows, Way, right

row = Rows("responses")

CREATE = "responses.create"


def ask(way: Way, input: Any, **more: Any) -> Body:
    """The whole response."""
    return way.call(CREATE, model=way.model(), input=input, **{"temperature": 0, "max_output_tokens": 200, **more})


def text_of(reply: Body) -> str:
    """The text of its messages."""
    messages = [item for item in reply["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"] if part["type"] == "output_text")


def said(way: Way, input: Any, **more: Any) -> str:
    """The text of the answer."""
    return text_of(ask(way, input, **more))


def streamed(way: Way, input: Any, **more: Any) -> list[Body]:
    body = {"temperature": 0, "max_output_tokens": 200, **more}
    events = way.stream(CREATE, model=way.model(), input=input, **body)
    right([event["sequence_number"] for event in events], list(range(len(events))), "sequence_number")
    right(
        [event["type"] for event in (events[0], events[1])], ["response.created", "response.in_progress"], "the start"
    )
    right(events[-1]["type"], "response.completed", "the end")
    return events


def deltas(events: list[Body], kind: str) -> list[str]:
    """What a stream's events of one type add."""
    return [event["delta"] for event in events if event["type"] == f"response.{kind}.delta"]


def tool(name: str, **more: Any) -> Body:
    return {"type": "function", "name": name, "description": name, "parameters": TOOLS[name], **more}


def called(reply: Body) -> tuple[str, Body]:
    """The one call of a response."""
    calls = [item for item in reply["output"] if item["type"] == "function_call"]
    assert len(calls) == 1, f"{len(calls)} calls, and the text {text_of(reply)!r}"
    assert calls[0]["call_id"], "a call without an id"
    return calls[0]["name"], json.loads(calls[0]["arguments"])


def weather(way: Way, question: str = WEATHER, **more: Any) -> tuple[str, Body]:
    return called(ask(way, question, tools=[tool("get_weather"), tool("add_numbers")], **more))


def picture(data: str, **more: Any) -> Body:
    return {"type": "input_image", "image_url": f"data:image/png;base64,{data}", **more}


def user(*parts: Body) -> list[Body]:
    return [{"role": "user", "content": list(parts)}]


WHICH = {"type": "input_text", "text": COLOUR}


@row("response")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE)
    right(text_of(reply), way.says(PARIS, FRANCE))
    right((reply["object"], reply["status"], reply["model"]), ("response", "completed", way.answers_as))


@row("response, streamed")
def _(way: Way) -> Any:
    events = streamed(way, FRANCE)
    texts = deltas(events, "output_text")
    right(joined(texts), way.says(PARIS, FRANCE))
    right(text_of(events[-1]["response"]), way.says(PARIS, FRANCE), "the last event")


@row("instructions", "instructions")
def _(way: Way) -> Any:
    right(said(way, WHO), way.says(PIP, WHO), "without them")
    right(said(way, WHO, instructions=I_AM_ADA), ADA)


@row("several turns")
def _(way: Way) -> Any:
    turns = [("user", I_AM_ADA), ("assistant", NICE), ("user", WHO)]
    right(said(way, [{"role": role, "content": text} for role, text in turns]), way.says(ADA, WHO))


@row("previous_response_id")
def _(way: Way) -> Any:
    first = ask(way, I_AM_ADA)
    right(said(way, WHO, previous_response_id=first["id"]), way.says(ADA, WHO))


@row("kept, read again and deleted")
def _(way: Way) -> Any:
    id = ask(way, FRANCE)["id"]
    right(text_of(way.call("responses.retrieve", response_id=id)), way.says(PARIS, FRANCE))
    way.call("responses.delete", response_id=id)
    right(missing(way, id), 404, "the status after it was deleted")


@row("store off")
def _(way: Way) -> Any:
    right(missing(way, ask(way, FRANCE, store=False)["id"]), 404, "the status of what was not to be kept")


def missing(way: Way, id: str) -> int:
    """The status for a response that is not there."""
    try:
        way.call("responses.retrieve", response_id=id)
    except Refused as refused:
        return refused.status
    return 200


@row("unicode")
def _(way: Way) -> Any:
    right(said(way, REPEAT), way.says(UNICODE, REPEAT))
    right("".join(deltas(streamed(way, REPEAT), "output_text")), way.says(UNICODE, REPEAT), "streamed")


@row("tools", "tools")
def _(way: Way) -> Any:
    right(weather(way), PARIS_CALL)
    right(weather(way, ADD), ("add_numbers", {"a": 3, "b": 4}))
    right(said(way, FRANCE, tools=[tool("get_weather")]), PARIS, "where no tool is needed")


@row("tools, streamed", "tools")
def _(way: Way) -> Any:
    events = streamed(way, WEATHER, tools=[tool("get_weather"), tool("add_numbers")])
    right(called(events[-1]["response"]), PARIS_CALL)
    arguments = deltas(events, "function_call_arguments")
    right(json.loads("".join(arguments)), {"city": "Paris"})
    check_flow(arguments)


@row("tool_choice required", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    name, arguments = called(ask(way, FRANCE, tools=[tool("get_weather")], tool_choice="required"))
    right((name, list(arguments)), ("get_weather", ["city"]))


@row("tool_choice named", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    name, arguments = weather(way, tool_choice={"type": "function", "name": "add_numbers"})
    right((name, sorted(arguments)), ("add_numbers", ["a", "b"]))


@row("tool_choice none", "tool_choice", words=("tool",))
def _(way: Way) -> Any:
    output = ask(way, WEATHER, tools=[tool("get_weather")], tool_choice="none")["output"]
    right([item["type"] for item in output], ["message"], "output")


@row("parallel_tool_calls off", "parallel_tool_calls", words=("tool",))
def _(way: Way) -> Any:
    right(weather(way, parallel_tool_calls=False), PARIS_CALL)


@row("tool's result", "tools")
def _(way: Way) -> Any:
    first = ask(way, WEATHER, tools=[tool("get_weather")])
    id = next(item["call_id"] for item in first["output"] if item["type"] == "function_call")
    result = {"type": "function_call_output", "call_id": id, "output": SUNNY}
    right(said(way, [result], tools=[tool("get_weather")], previous_response_id=first["id"]), RESULT)
    turns = [{"role": "user", "content": WEATHER}, *first["output"], result]
    right(said(way, turns, tools=[tool("get_weather")]), RESULT, "without the store")


@row("image", "input[].content[].image_url", "input[].content[]", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user(picture(RED), WHICH)), "The image is red.")
    right(said(way, user(WHICH, picture(BLUE))), "The image is blue.")


@row("image by link", "input[].content[].image_url", words=("image",))
def _(way: Way) -> Any:
    right(said(way, user({"type": "input_image", "image_url": LINK}, WHICH)), "The image is red.")


@row("text.format json_object", "text.format", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(said(way, PERSON, text={"format": {"type": "json_object"}})), ANNA)
    return check_object(said(way, ITALY, text={"format": {"type": "json_object"}}))


def form() -> Body:
    return {"format": {"type": "json_schema", "name": "response", "schema": ANSWER}}


@row("text.format json_schema", "text.format", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(said(way, ITALY, text=form())), {"answer": ROME})


@row("text.format json_schema, streamed", "text.format", words=("form",))
def _(way: Way) -> Any:
    texts = deltas(streamed(way, ITALY, text=form()), "output_text")
    right(json.loads(joined(texts)), {"answer": ROME})


def thoughts(way: Way, effort: str) -> tuple[str, str]:
    reply = ask(way, SUM, reasoning={"effort": effort, "summary": "auto"})
    items = [item for item in reply["output"] if item["type"] == "reasoning"]
    parts = [part["text"] for item in items for part in item.get("content") or item.get("summary") or ()]
    return "".join(parts).strip(), text_of(reply)


@row("reasoning none", "reasoning.effort", "reasoning")
def _(way: Way) -> Any:
    right(thoughts(way, "none"), ("", way.says(FIFTEEN, SUM)))


@row("reasoning", "reasoning.effort", "reasoning")
def _(way: Way) -> Any:
    for level in ("low", "high"):
        right(thoughts(way, level), (THOUGHT, FIFTEEN), level)


@row("logprobs", "top_logprobs", "include", words=("log probabilities",))
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, include=["message.output_text.logprobs"], top_logprobs=2)
    found = reply["output"][0]["content"][0].get("logprobs")
    assert found, "none came"
    right("".join(entry["token"] for entry in found), PARIS)
    right({len(entry["top_logprobs"]) for entry in found}, {2}, "alternatives")
    return [entry["token"] for entry in found]


@row("max_output_tokens", "max_output_tokens")
def _(way: Way) -> Any:
    reply = (
        ask(way, "Count to 20", max_output_tokens=16) if not way.echoes else ask(way, "one " * 30, max_output_tokens=16)
    )
    right((reply["status"], reply["usage"]["output_tokens"]), ("incomplete", 16))
    right(reply["incomplete_details"]["reason"], "max_output_tokens", "reason")


@row("temperature", "temperature", chance=True)
def _(way: Way) -> Any:
    return check_chance(said(way, FLAT), lambda: said(way, FLAT, temperature=1, max_output_tokens=30))


@row("top_p", "top_p")
def _(way: Way) -> Any:
    cold = said(way, FLAT)
    right({said(way, FLAT, temperature=1, top_p=0.001) for _ in range(4)}, {cold}, "almost nothing to choose from")


@row("usage")
def _(way: Way) -> Any:
    wanted = tokens_of_france(way)
    for usage in (ask(way, FRANCE)["usage"], streamed(way, FRANCE)[-1]["response"]["usage"]):
        right((usage["input_tokens"], usage["output_tokens"]), wanted, "tokens in and out")
        right(usage["total_tokens"], sum(wanted), "total_tokens")
    return wanted


@row("metadata")
def _(way: Way) -> Any:
    reply = ask(way, FRANCE, metadata={"who": "ada"})
    right((text_of(reply), reply["metadata"]), (way.says(PARIS, FRANCE), {"who": "ada"}))


@row("unknown field", "made_up")
def _(way: Way) -> Any:
    right(said(way, FRANCE, made_up=[1]), way.says(PARIS, FRANCE))


@row("unknown model")
def _(way: Way) -> Any:
    check_unknown_model(way, lambda name: way.call(CREATE, model=name, input=FRANCE), "NotFoundError")
