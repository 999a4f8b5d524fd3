"""What an Ollama request means: turns, tools, pictures, loads and embeddings; and what their answers leave out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from adapters.dialect import Ask, Encoder, LoadAsk, Stamp
from adapters.ollama import serve
from canonical.errors import BackendError, InvalidRequest, Unsupported
from canonical.events import Event, Finished, Started, TextDelta, TokenLogprob, ToolCallDelta, Usage, fold
from canonical.media import Blob
from canonical.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import Embeddings, Generate, Prompt

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
STAMP = Stamp("abc", lambda: 1_787_302_800_104_000_999)
MOMENT = "2026-08-21T09:00:00.104000Z"


def chat(messages: list[dict[str, Any]], **fields: Any) -> Generate:
    ask = serve.read_chat(json.dumps({"model": "pip", "messages": messages} | fields).encode())
    assert isinstance(ask, Ask)
    return ask.requests[0]


def generate(**fields: Any) -> Generate:
    ask = serve.read_generate(json.dumps({"model": "pip", "prompt": "hi"} | fields).encode())
    assert isinstance(ask, Ask)
    return ask.requests[0]


def encoder(route: str = "chat", **fields: Any) -> Encoder:
    body = {"model": "Pip:Latest", "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]} | fields
    read = serve.read_chat if route == "chat" else serve.read_generate
    ask = read(json.dumps(body).encode())
    assert isinstance(ask, Ask)
    return ask.encoder(STAMP)


# Turns


def test_m3_roles_of_a_chat() -> None:
    roles = [message.role for message in chat([{"role": role} for role in ("system", "User", "ASSISTANT")]).messages]
    assert roles == ["system", "user", "assistant"]


def test_m3_the_developer_is_the_system() -> None:
    (message,) = chat([{"role": "developer", "content": "Be brief."}]).messages
    assert message == Message("system", (Text("Be brief."),))


@pytest.mark.parametrize("role", ["", "ai", "function", None])
def test_m2_another_role_is_refused(role: str | None) -> None:
    with pytest.raises(InvalidRequest, match="invalid role"):
        chat([{"role": role, "content": "hi"}])


def test_m3_earlier_thinking_stands_before_the_answer() -> None:
    (message,) = chat([{"role": "assistant", "content": "15", "thinking": "7 + 8"}]).messages
    assert message.parts == (Reasoning("7 + 8"), Text("15"))


def test_m3_an_empty_turn_is_an_empty_text() -> None:
    assert chat([{"role": "user"}]).messages[0].parts == (Text(""),)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_m3_pictures_are_bare_base64_or_data_urls(prefix: str) -> None:
    picture = prefix + base64.b64encode(PNG).decode()
    expected = Image(Blob(PNG, "image/png"))
    assert chat([{"role": "user", "content": "What?", "images": [picture]}]).messages[0].parts == (
        expected,
        Text("What?"),
    )
    assert generate(images=[picture]).messages[0].parts == (expected, Text("hi"))


@pytest.mark.parametrize("picture", ["not base64!", base64.b64encode(b"text").decode(), "http://example.org/x.png"])
def test_m2_what_is_no_picture_is_refused(picture: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        generate(images=[picture])
    assert caught.value.param == "images"


# Tools


def call(name: str, arguments: Any = None, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}} | more


def test_m3_calls_get_ids_from_their_place_and_answers_find_them() -> None:
    messages = chat(
        [
            {"role": "user", "content": "Both, please."},
            {"role": "assistant", "content": "", "tool_calls": [call("f", {"x": 1.0}), call("g", {})]},
            {"role": "tool", "tool_name": "g", "content": "two"},
            {"role": "tool", "content": "one"},
            {"role": "tool", "content": "nobody asked"},
        ]
    ).messages
    assert messages[1].parts == (ToolCall("call_1_0", "f", '{"x":1.0}'), ToolCall("call_1_1", "g", "{}"))
    assert messages[2].parts == (ToolResult("call_1_1", "g", "two"),)
    assert messages[3].parts == (ToolResult("call_1_0", "f", "one"),)
    assert messages[4].parts == (ToolResult("call_4", "", "nobody asked"),)


def test_m3_ids_of_the_client_are_kept() -> None:
    messages = chat(
        [
            {"role": "assistant", "tool_calls": [call("f", id="call_a"), call("f", id="call_b")]},
            {"role": "tool", "tool_call_id": "call_b", "content": "two"},
            {"role": "tool", "tool_call_id": "call_z", "tool_name": "f", "content": "?"},
            {"role": "tool", "tool_name": "f", "content": "one"},
        ]
    ).messages
    results = [message.parts[0] for message in messages[1:]]
    assert results == [
        ToolResult("call_b", "f", "two"),
        ToolResult("call_z", "f", "?"),
        ToolResult("call_a", "f", "one"),
    ]


def test_m3_a_tool_may_answer_with_a_picture() -> None:
    picture = base64.b64encode(PNG).decode()
    told, shown = chat([{"role": "tool", "tool_name": "see", "content": "here", "images": [picture]}]).messages
    assert told.parts == (ToolResult("call_0", "see", "here"),)
    assert (shown.role, shown.parts) == ("user", (Image(Blob(PNG, "image/png")),))


@pytest.mark.parametrize(
    ("arguments", "got"), [('"{}"', "string"), ("[]", "array"), ("true", "bool"), ("false", "bool"), ("5", "number")]
)
def test_m2_arguments_are_an_object(arguments: str, got: str) -> None:
    with pytest.raises(InvalidRequest, match=f"cannot unmarshal {got} into .*arguments"):
        chat([{"role": "assistant", "tool_calls": [call("f", json.loads(arguments))]}])


@pytest.mark.parametrize("bad", [{}, {"function": None}, {"function": {"arguments": {}}}])
def test_m2_a_call_without_a_name_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        chat([{"role": "assistant", "tool_calls": [bad]}])


def tool(parameters: Any) -> Any:
    request = chat(
        [{"role": "user"}], tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    )
    (found,) = request.tools
    return None if found.parameters is None else json.loads(bytes(found.parameters))


def test_m3_a_tools_schema_is_kept_whole() -> None:
    schema = {"type": "object", "$defs": {"A": {}}, "properties": {"a": {"type": ["string", "null"]}}}
    assert tool(schema) == schema
    assert tool(None) is None
    assert tool({"type": "object", "properties": []}) == {"type": "object", "properties": {}}


def test_m2_a_tool_needs_a_name_and_an_object() -> None:
    with pytest.raises(InvalidRequest, match="must be an object"):
        tool("string")
    for bad in ({}, {"function": {}}, {"function": {"name": ""}}):
        with pytest.raises(InvalidRequest, match="name"):
            chat([{"role": "user"}], tools=[bad])


# Prompts


def test_m3_a_prompt_is_a_turn_of_a_conversation() -> None:
    request = generate(system="Be brief.")
    assert request.messages == (Message("system", (Text("Be brief."),)), Message("user", (Text("hi"),)))
    assert request.prompt is None


def test_m3_a_raw_prompt_and_one_with_a_gap_are_taken_as_they_stand() -> None:
    raw, gap = generate(raw=True), generate(suffix="the end")
    assert (raw.prompt, raw.messages) == (Prompt(text="hi"), ())
    assert (gap.prompt, gap.messages) == (Prompt(text="hi", suffix="the end"), ())
    assert generate(suffix="", raw=False, context=[], template="").prompt is None


@pytest.mark.parametrize("fields", [{"template": "x"}, {"system": "x"}, {"context": [1]}])
def test_m2_raw_goes_alone(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="raw mode does not support template, system, or context"):
        generate(raw=True, **fields)


@pytest.mark.parametrize("fields", [{"template": "{{ .Prompt }}"}, {"context": [1, 2]}, {"_debug_render_only": True}])
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(Unsupported) as caught:
        generate(**fields)
    assert caught.value.param in fields


def test_pictures_beside_a_raw_prompt_are_refused() -> None:
    picture = base64.b64encode(PNG).decode()
    for fields in ({"raw": True}, {"suffix": "end"}):
        with pytest.raises(Unsupported):
            generate(images=[picture], **fields)


# Loads


@pytest.mark.parametrize(
    ("fields", "seconds", "reason"),
    [
        ({}, None, "load"),
        ({"keep_alive": -1}, -1, "load"),
        ({"keep_alive": "10m"}, 600, "load"),
        ({"keep_alive": 0}, 0, "unload"),
        ({"keep_alive": "0s"}, 0, "unload"),
    ],
)
def test_m2_an_empty_request_loads_or_unloads(fields: dict[str, Any], seconds: float | None, reason: str) -> None:
    for empty in ({}, {"messages": []}, {"messages": None}):
        ask = serve.read_chat(json.dumps({"model": "Pip"} | empty | fields).encode())
        assert isinstance(ask, LoadAsk)
        assert (ask.request.model, ask.request.keep_alive) == ("Pip", seconds)
        assert ask.whole(STAMP).decode() == (
            f'{{"model":"Pip","created_at":"{MOMENT}","message":{{"role":"assistant","content":""}},'
            f'"done":true,"done_reason":"{reason}"}}'
        )
    for empty in ({}, {"prompt": ""}, {"prompt": None}):
        ask = serve.read_generate(json.dumps({"model": "Pip"} | empty | fields).encode())
        assert isinstance(ask, LoadAsk)
        assert ask.request.keep_alive == seconds
        assert ask.whole(STAMP).decode() == (
            f'{{"model":"Pip","created_at":"{MOMENT}","response":"","done":true,"done_reason":"{reason}"}}'
        )


def test_m2_a_chat_of_a_system_message_alone_is_no_load() -> None:
    assert chat([{"role": "system", "content": "x"}]).messages


# Embeddings


@pytest.mark.parametrize(
    ("value", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), (["", "b"], ("", "b")), ("", ()), ([], ()), (None, ())],
)
def test_m2_embed_takes_a_text_or_a_list(value: Any, inputs: tuple[str, ...]) -> None:
    ask = serve.read_embed(json.dumps({"model": "pip", "input": value}).encode())
    assert ask.request.inputs == inputs


def test_m2_embed_reads_its_other_fields() -> None:
    body = {"model": "pip", "input": "a", "dimensions": 8, "truncate": False, "keep_alive": "1m", "options": {"x": 1}}
    request = serve.read_embed(json.dumps(body).encode()).request
    assert (request.dimensions, request.truncate, request.keep_alive) == (8, False, 60)
    body["dimensions"] = 0
    assert serve.read_embed(json.dumps(body).encode()).request.dimensions is None


def test_m2_embed_answers_a_list_of_lists() -> None:
    ask = serve.read_embed(b'{"model":"Pip","input":"a"}')
    answer = Embeddings(model="pip", vectors=([0.5, -0.5],), prompt_tokens=3, total=7000, load=5)
    assert ask.whole(answer) == (
        b'{"model":"Pip","embeddings":[[0.5,-0.5]],"total_duration":7000,"load_duration":5,"prompt_eval_count":3}'
    )
    assert ask.whole(Embeddings(model="pip", vectors=())) == b'{"model":"Pip","embeddings":[]}'


def test_m2_the_older_route_answers_one_flat_list() -> None:
    ask = serve.read_embeddings(b'{"model":"pip","prompt":"a","keep_alive":5}')
    assert (ask.request.inputs, ask.request.keep_alive) == (("a",), 5)
    assert ask.whole(Embeddings(model="pip", vectors=([0.5, -0.5],))) == b'{"embedding":[0.5,-0.5]}'
    empty = serve.read_embeddings(b'{"model":"pip"}')
    assert empty.request.inputs == ()
    assert empty.whole(Embeddings(model="pip", vectors=())) == b'{"embedding":[]}'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_vector_that_is_not_of_finite_numbers_is_no_answer(number: float) -> None:
    answer = Embeddings(model="pip", vectors=([0.5], [number]))
    for ask in (serve.read_embed(b'{"model":"m","input":"a"}'), serve.read_embeddings(b'{"model":"m","prompt":"a"}')):
        with pytest.raises(BackendError, match="finite"):
            ask.whole(answer)


# Answers: the stories tell most; here is what they do not


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_m2_the_requested_name_is_echoed_whatever_the_backend_calls_it(route: str) -> None:
    stream = encoder(route)
    assert stream.feed(Started("backend/pip")) == b""
    assert json.loads(stream.feed(TextDelta("x")))["model"] == "Pip:Latest"


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_m2_logprobs_nobody_asked_for_stay_out(route: str) -> None:
    token = TokenLogprob("x", -0.5, None, (TokenLogprob("x", -0.5), TokenLogprob("y", -1.5), TokenLogprob("z", -2.5)))
    piece = TextDelta("x", (token,))
    assert "logprobs" not in json.loads(encoder(route).feed(piece))
    (plain,) = json.loads(encoder(route, logprobs=True).feed(piece))["logprobs"]
    assert plain == {"token": "x", "logprob": -0.5}
    (two,) = json.loads(encoder(route, logprobs=True, top_logprobs=2).feed(piece))["logprobs"]
    assert [other["token"] for other in two["top_logprobs"]] == ["x", "y"]


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_m2_a_failure_is_the_last_line(route: str) -> None:
    stream = encoder(route)
    stream.feed(Started())
    stream.feed(TextDelta("The sk"))
    assert stream.fail(BackendError("backend stopped\nresponding")) == b'{"error":"backend stopped\\nresponding"}\n'
    assert stream.finish() == b""
    assert stream.media_type == "application/x-ndjson"


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_empty_pieces_send_nothing(route: str) -> None:
    assert encoder(route).feed(TextDelta("")) == b""


CALL: list[Event] = [Started(), ToolCallDelta(0, "call_a", "f", "")]


def told(events: list[Event], route: str) -> list[dict[str, Any]]:
    stream = encoder(route)
    return [json.loads(line) for line in b"".join(map(stream.feed, events)).decode().splitlines()]


def calls_of(line: dict[str, Any]) -> Any:
    return line.get("message", line).get("tool_calls")


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_m2_a_call_without_arguments_has_an_empty_object(route: str) -> None:
    lines = told([*CALL, Finished("tool_calls")], route)
    assert calls_of(lines[0]) == [{"id": "call_a", "function": {"index": 0, "name": "f", "arguments": {}}}]
    assert [line["done"] for line in lines] == [False, True]
    assert lines[1]["done_reason"] == "stop"


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_m2_arguments_are_one_line_in_the_models_order(route: str) -> None:
    stream = encoder(route)
    pieces = [*CALL, ToolCallDelta(0, arguments='{"b" :\n 1.50,'), ToolCallDelta(0, arguments='"a":"\u2028x"}')]
    sent = b"".join(map(stream.feed, [*pieces, Finished("tool_calls")]))
    assert b'"arguments":{"b":1.50,"a":"\\u2028x"}' in sent
    assert len(sent.decode().splitlines()) == 2


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "{", '{"a":tru}', "null", "[" * 100_000])
@pytest.mark.parametrize("route", ["chat", "generate"])
def test_broken_arguments_are_an_error_and_no_made_up_object(route: str, arguments: str) -> None:
    events: list[Event] = [*CALL, ToolCallDelta(0, arguments=arguments), Finished("tool_calls")]
    with pytest.raises(BackendError, match="'f' with arguments that are not a JSON object"):
        told(events, route)
    read = serve.read_chat if route == "chat" else serve.read_generate
    ask = read(b'{"model":"pip","prompt":"x","messages":[{"role":"user"}],"stream":false}')
    assert isinstance(ask, Ask)
    with pytest.raises(BackendError, match="not a JSON object"):
        ask.whole([fold(events)], STAMP)


@pytest.mark.parametrize("route", ["chat", "generate"])
def test_a_call_that_the_length_cut_off_is_left_out(route: str) -> None:
    whole = ToolCallDelta(0, "call_a", "f", '{"x":1}')
    cut = ToolCallDelta(1, "call_b", "g", '{"y":')
    lines = told([Started(), whole, cut, Finished("length", Usage(1, 2))], route)
    assert [call["function"]["name"] for call in calls_of(lines[0])] == ["f"]
    assert lines[-1]["done_reason"] == "length"
    (only,) = told([*CALL, ToolCallDelta(0, arguments="{"), Finished("length")], route)
    assert calls_of(only) is None


@pytest.mark.parametrize("route", ["chat", "generate"])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", "content_filter", "cancelled"])
def test_m2_done_reason_is_stop_or_length_alone(route: str, reason: Any) -> None:
    (line,) = told([Started(), Finished(reason)], route)
    assert line["done_reason"] == "stop"


def test_m2_created_at_follows_the_clock() -> None:
    moments = iter([1_787_302_800_000_000_000, 1_787_302_800_999_999_999, 1_787_302_801_000_001_000])
    ask = serve.read_generate(b'{"model":"pip","prompt":"x"}')
    assert isinstance(ask, Ask)
    stream = ask.encoder(Stamp("abc", lambda: next(moments)))
    told_at = [json.loads(stream.feed(TextDelta("x")))["created_at"] for _ in range(3)]
    assert told_at == [
        "2026-08-21T09:00:00.000000Z",
        "2026-08-21T09:00:00.999999Z",
        "2026-08-21T09:00:01.000001Z",
    ]
