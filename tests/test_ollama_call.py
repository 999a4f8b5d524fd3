"""Us as Ollama's client: what we send, what we refuse to send, and how we read what odd servers answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from adapters.dialect import Ask
from adapters.framing import RECORD_LIMIT
from adapters.ollama import call, serve
from canonical.errors import (
    BackendError,
    BackendTimeout,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    Unsupported,
)
from canonical.events import (
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from canonical.media import Blob
from canonical.messages import Audio, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult
from canonical.requests import Embed, Generate, LoadOptions, Origin, Output, Prompt, Sampling, Tool, ToolChoice

PNG = Blob(b"\x89PNG\r\n\x1a\n", "image/png")


def turn(role: Role, *parts: Part) -> Message:
    return Message(role, parts)


def chat(*messages: Message, **fields: Any) -> dict[str, Any]:
    request = Generate(model="ours", messages=messages or (turn("user", Text("hi")),), **fields)
    found: dict[str, Any] = json.loads(call.write_chat(request, "theirs"))
    return found


def prompt(text: str = "hi", suffix: str | None = None, **fields: Any) -> dict[str, Any]:
    request = Generate(model="ours", prompt=Prompt(text=text, suffix=suffix), **fields)
    found: dict[str, Any] = json.loads(call.write_generate(request, "theirs"))
    return found


def new_id() -> str:
    return "call_new"


# What we send


def test_m5_a_plain_chat_says_only_what_its_client_said() -> None:
    assert chat() == {"model": "theirs", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert chat(stream=False)["stream"] is False


def test_m5_options_are_named_back() -> None:
    sampling = Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        typical_p=0.5,
        repeat_penalty=1.1,
        repeat_last_n=-1,
        presence_penalty=0.25,
        frequency_penalty=0.5,
        seed=42,
        max_tokens=7,
        stop=("\n",),
        logit_bias={"5": 1.0},
    )
    assert chat(sampling=sampling, load=LoadOptions(context=8192))["options"] == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "typical_p": 0.5,
        "repeat_penalty": 1.1,
        "repeat_last_n": -1,
        "presence_penalty": 0.25,
        "frequency_penalty": 0.5,
        "seed": 42,
        "num_predict": 7,
        "stop": ["\n"],
        "num_ctx": 8192,
    }


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"keep_alive": 300.0}, "keep_alive", 300),
        ({"keep_alive": -1.0}, "keep_alive", -1),
        ({"keep_alive": 0.5}, "keep_alive", 0.5),
        ({"keep_alive": 0.0}, "keep_alive", 0),
        ({"think": "off"}, "think", False),
        ({"think": "on"}, "think", True),
        ({"think": "minimal"}, "think", "low"),
        ({"think": "max"}, "think", "max"),
        ({"output": Output("json")}, "format", "json"),
        ({"output": Output("schema", schema=Raw(b'{"type":"object"}'))}, "format", {"type": "object"}),
        ({"top_logprobs": 0}, "logprobs", True),
        ({"top_logprobs": 3}, "top_logprobs", 3),
    ],
)
def test_m5_values_are_spelled_as_ollama_spells_them(fields: dict[str, Any], name: str, value: Any) -> None:
    assert chat(**fields)[name] == value
    assert prompt(**fields)[name] == value


def test_m5_logprobs_without_alternatives_ask_for_none() -> None:
    assert "top_logprobs" not in chat(top_logprobs=0)


def test_m5_turns_of_every_kind() -> None:
    messages = chat(
        turn("system", Text("Be "), Text("brief.")),
        turn("user", Image(PNG), Text("What?"), Audio(Blob(b"RIFFxxxxWAVE", "audio/wav"))),
        turn("assistant", Reasoning("Hm."), ToolCall("call_a", "f", '{"x": 1}'), ToolCall("call_b", "g", "")),
        turn("tool", ToolResult("call_b", "", "two"), ToolResult("call_a", "f", "one")),
        turn("tool", ToolResult("", "h", "three"), Image(PNG)),
        turn("user", ToolResult("call_z", "", "?"), Text("And?")),
    )["messages"]
    assert messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?", "images": [PNG.base64(), "UklGRnh4eHhXQVZF"]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "Hm.",
            "tool_calls": [
                {"id": "call_a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
                {"id": "call_b", "function": {"index": 1, "name": "g", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "two", "tool_name": "g", "tool_call_id": "call_b"},
        {"role": "tool", "content": "one", "tool_name": "f", "tool_call_id": "call_a"},
        {"role": "tool", "content": "three", "tool_name": "h", "images": [PNG.base64()]},
        {"role": "tool", "content": "?", "tool_call_id": "call_z"},
        {"role": "user", "content": "And?"},
    ]


TOOLS = (Tool(name="f", description="Does f.", parameters=Raw(b'{"type":"object","$defs":{}}')), Tool(name="g"))


def test_m5_tools_are_offered_and_ruled_out() -> None:
    f = {"name": "f", "description": "Does f.", "parameters": {"type": "object", "$defs": {}}}
    g = {"name": "g", "parameters": {"type": "object", "properties": {}}}
    expected = [{"type": "function", "function": f}, {"type": "function", "function": g}]
    assert chat(tools=TOOLS)["tools"] == expected
    assert chat(tools=TOOLS, tool_choice=ToolChoice("auto"), parallel_tool_calls=False)["tools"] == expected
    assert "tools" not in chat(tools=TOOLS, tool_choice=ToolChoice("none"))


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "f")])
def test_m5_a_forced_tool_is_refused_and_not_forgotten(choice: ToolChoice) -> None:
    with pytest.raises(Unsupported) as caught:
        chat(tools=TOOLS, tool_choice=choice)
    assert caught.value.param == "tool_choice"


def test_m5_a_link_to_a_picture_is_refused() -> None:
    with pytest.raises(Unsupported, match="links"):
        chat(turn("user", Image("https://example.org/cat.png")))


def test_m5_earlier_arguments_must_be_an_object() -> None:
    with pytest.raises(InvalidRequest, match="'f' are not a JSON object"):
        chat(turn("assistant", ToolCall("call_a", "f", "{")))


def test_m5_prompts_go_as_they_stand() -> None:
    assert prompt() == {"model": "theirs", "prompt": "hi", "raw": True, "stream": True}
    assert prompt(suffix="end") == {"model": "theirs", "prompt": "hi", "suffix": "end", "stream": True}


@pytest.mark.parametrize("wrong", [Prompt(tokens=(1, 2)), Prompt(text=""), Prompt(text="", suffix="x"), None])
def test_m5_prompts_that_ollama_cannot_take_are_refused(wrong: Prompt | None) -> None:
    with pytest.raises(Unsupported):
        call.write_generate(Generate(model="ours", prompt=wrong), "theirs")


def test_m5_a_chat_without_messages_would_only_load() -> None:
    with pytest.raises(Unsupported):
        call.write_chat(Generate(model="ours"), "theirs")


def test_m5_inputs_of_an_embedding() -> None:
    request = Embed(model="ours", inputs=("a", "b"), dimensions=8, truncate=False, keep_alive=60.0)
    assert json.loads(call.write_embed(request, "theirs")) == {
        "model": "theirs",
        "input": ["a", "b"],
        "dimensions": 8,
        "truncate": False,
        "keep_alive": 60,
    }
    with pytest.raises(Unsupported):
        call.write_embed(Embed(model="ours", inputs=("a", (1, 2))), "theirs")


# What only Ollama knows travels to Ollama


def test_m5_unknown_fields_and_options_travel_undecoded() -> None:
    body = (
        b'{"model":"ours","messages":[{"role":"user","content":"hi"}],"shift":false,"truncate":false,"suffix":"no",'
        b'"new":{"a":1.50},"options":{"num_gpu":7,"mirostat":2,"top_k":3,"num_ctx":64,"temperature":null},'
        b'"keep_alive":"5m"}'
    )
    ask = serve.read_chat(body)
    assert isinstance(ask, Ask)
    sent = call.write_chat(ask.requests[0], "theirs")
    assert json.loads(sent) == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "keep_alive": 300,
        "options": {"top_k": 3, "num_ctx": 64, "num_gpu": 7, "mirostat": 2},
        "shift": False,
        "truncate": False,
        "new": {"a": 1.5},
    }
    assert b'"new":{"a":1.50}' in sent


def test_m5_unknown_fields_of_a_prompt_and_an_embedding_travel_too() -> None:
    ask = serve.read_generate(b'{"model":"ours","prompt":"hi","raw":true,"width":5,"options":{"num_gpu":1}}')
    assert isinstance(ask, Ask)
    sent = json.loads(call.write_generate(ask.requests[0], "theirs"))
    assert (sent["width"], sent["options"], sent["model"]) == (5, {"num_gpu": 1}, "theirs")
    embed = serve.read_embeddings(b'{"model":"ours","prompt":"hi","options":{"num_ctx":5},"new":1}')
    sent = json.loads(call.write_embed(embed.request, "theirs"))
    assert sent == {"model": "theirs", "input": ["hi"], "options": {"num_ctx": 5}, "new": 1}


def test_m5_another_dialects_fields_stay_at_home() -> None:
    origin = Origin("openai", b'{"model":"ours","user":"me","options":{"num_gpu":1}}')
    assert chat(origin=origin) == chat()


@pytest.mark.parametrize("name", ["Model", "MODEL", "\\u004dodel", "me\u017f\u017fages", "\u212aeep_alive"])
def test_no_spelling_of_a_field_overrides_ours(name: str) -> None:
    """Ollama folds the case of keys as Go does, so an odd spelling that travelled on would win."""
    body = f'{{"messages":[{{"role":"user"}}],"model":"ours","{name}":"evil"}}'.encode()
    try:
        ask = serve.read_chat(body)
    except InvalidRequest:
        return
    assert isinstance(ask, Ask)
    assert b"evil" not in call.write_chat(ask.requests[0], "theirs")


# What we read


LINES = (
    b'{"model":"m","created_at":"x","message":{"role":"assistant","content":"","thinking":"Hm"},"done":false}\n'
    b'{"model":"m","created_at":"x","message":{"role":"assistant","content":"Hi","thinking":"!"},"done":false}\n'
    b'{"model":"m","created_at":"x","message":{"role":"assistant","content":"."},"done":true,"done_reason":"length",'
    b'"total_duration":4,"load_duration":1,"prompt_eval_count":7,"prompt_eval_duration":2,"eval_count":9,"eval_duration":3}\n'
)
EVENTS = [
    Started("m"),
    ReasoningDelta("Hm"),
    ReasoningDelta("!"),
    TextDelta("Hi"),
    TextDelta("."),
    Finished("length", Usage(7, 9), Timings(4, 1, 2, 3)),
]


def test_m5_a_stream_is_read_with_its_last_text_and_counts() -> None:
    reader = call.ChatReader(new_id)
    assert reader.feed(LINES) == EVENTS
    assert reader.finish() == []


@pytest.mark.parametrize("ending", [b"\r\n", b" \n", b"\n\n\r\n"])
def test_m5_blank_lines_and_other_line_ends_do_no_harm(ending: bytes) -> None:
    assert call.ChatReader(new_id).feed(LINES.replace(b"\n", ending)) == EVENTS


def test_m5_a_last_line_without_its_break_counts_if_it_is_whole() -> None:
    reader = call.ChatReader(new_id)
    assert reader.feed(LINES[:-1]) + reader.finish() == EVENTS
    cut = call.ChatReader(new_id)
    assert cut.feed(LINES[:-2]) + cut.finish() == EVENTS[:4]


def test_m5_what_follows_done_is_passed_over() -> None:
    reader = call.ChatReader(new_id)
    assert reader.feed(LINES + b"nonsense\n" + LINES) == EVENTS
    assert reader.feed(b'{"done":true}') + reader.finish() == []


def end(line: bytes) -> list[Event]:
    return call.ChatReader(new_id).feed(line + b"\n")


@pytest.mark.parametrize(
    ("fields", "finished"),
    [
        (b"", Finished("stop")),
        (b',"done_reason":null', Finished("stop")),
        (b',"done_reason":"load"', Finished("stop")),
        (b',"done_reason":"unload"', Finished("stop")),
        (b',"eval_count":3', Finished("stop", Usage(0, 3))),
        (b',"prompt_eval_count":3.0', Finished("stop", Usage(3, 0))),
        (b',"total_duration":5e3', Finished("stop", None, Timings(5000))),
    ],
)
def test_m5_what_a_last_line_may_leave_out(fields: bytes, finished: Finished) -> None:
    assert end(b'{"model":"m","message":{"content":""},"done":true' + fields + b"}") == [Started("m"), finished]
    assert end(b'{"done":true' + fields + b"}") == [Started(), finished]


def test_m5_tool_calls_are_numbered_and_named_anew() -> None:
    line = (
        b'{"message":{"content":null,"tool_calls":[{"function":{"index":0,"name":"f","arguments":{"x":1}}},'
        b'{"id":"call_a","function":{"index":0,"name":"g","arguments":"{\\"y\\":2}"}},'
        b'{"id":"call_a","function":{"name":"h","arguments":null}},{"id":"","function":{"name":"i"}}]},"done":true}'
    )
    ids = iter(["one", "two", "three"])
    assert call.ChatReader(lambda: next(ids)).feed(line + b"\n") == [
        Started(),
        ToolCallDelta(0, "one", "f", '{"x":1}'),
        ToolCallDelta(1, "call_a", "g", '{"y":2}'),
        ToolCallDelta(2, "two", "h", "{}"),
        ToolCallDelta(3, "three", "i", "{}"),
        Finished("tool_calls"),
    ]


def test_m5_a_cut_off_answer_with_calls_is_cut_off() -> None:
    line = b'{"message":{"tool_calls":[{"function":{"name":"f"}}]},"done":true,"done_reason":"length"}'
    assert end(line)[-1] == Finished("length")


def test_m5_logprobs_are_read() -> None:
    line = (
        b'{"message":{"content":"a"},"done":false,"logprobs":[{"token":"a","logprob":-0.5,"bytes":[97],'
        b'"top_logprobs":[{"token":"b","logprob":-1}]}]}'
    )
    token = TokenLogprob("a", -0.5, (97,), (TokenLogprob("b", -1.0),))
    assert end(line) == [Started(), TextDelta("a", (token,))]
    assert end(line.replace(b'"content":"a"', b'"content":null'))[1] == TextDelta("", (token,))


def test_m5_lines_of_generate() -> None:
    data = (
        b'{"model":"m","response":"","thinking":"Hm","done":false}\n{"model":"m","response":"Hi","done":false}\n'
        b'{"model":"m","tool_calls":[{"function":{"name":"f"}}],"done":false}\n{"model":"m","thinking":"Oh"}\n'
        b'{"model":"m","response":"","done":true,"context":[1,2],"eval_count":2}\n'
    )
    assert call.GenerateReader(new_id).feed(data) == [
        Started("m"),
        ReasoningDelta("Hm"),
        TextDelta("Hi"),
        ToolCallDelta(0, "call_new", "f", "{}"),
        ReasoningDelta("Oh"),
        Finished("tool_calls", Usage(0, 2)),
    ]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"error":"backend stopped"}', "backend stopped"),
        (b'{"error":{"message":"out of memory","code":5}}', "out of memory"),
        (b'{"error":""}', "without a reason"),
        (b'{"error":{}}', "without a reason"),
        (b'{"error":true}', "without a reason"),
        (b"nonsense", "not Ollama's"),
        (b'data: {"x":1}', "not Ollama's"),
        (b"[]", "not Ollama's"),
        (b'{"message":"hi"}', "not Ollama's"),
        (b'{"message":{"content":["hi"]}}', "not Ollama's"),
        (b'{"message":{"content":"\xff"}}', "not Ollama's"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not Ollama's"),
        (b'{"message":{"tool_calls":[{"function":{"name":"f","arguments":"\\ud800"}}]}}', "not Ollama's"),
        (b'{"status":"success"}', "without an answer"),
        (b'{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}', "without a function name"),
        (b'{"message":{"tool_calls":[{}]}}', "without a function name"),
    ],
)
def test_m5_a_line_that_is_no_answer_is_an_error(line: bytes, text: str) -> None:
    with pytest.raises(BackendError, match=text):
        call.ChatReader(new_id).feed(line + b"\n")
    for read in (call.read_chat, call.read_generate):
        with pytest.raises(BackendError):
            read(line, new_id)


def test_m5_an_endless_line_is_an_error() -> None:
    reader = call.ChatReader(new_id)
    reader.feed(b"x" * RECORD_LIMIT)
    with pytest.raises(BackendError, match="more than"):
        reader.feed(b"x")


def test_m5_whole_replies_may_have_line_breaks() -> None:
    body = (
        b'{\n "model": "m",\n "message": {"role": "assistant", "content": "Hi", "thinking": "Hm"},\n "done": true\n}\n'
    )
    assert call.read_chat(body, new_id) == [Started("m"), ReasoningDelta("Hm"), TextDelta("Hi"), Finished("stop")]
    body = b'{"model":"m","response":"Hi","done":true,"done_reason":"length"}'
    assert call.read_generate(body, new_id) == [Started("m"), TextDelta("Hi"), Finished("length")]


def test_m5_a_whole_reply_that_is_not_done_has_no_end() -> None:
    assert call.read_chat(b'{"message":{"content":"Hi"},"done":false}', new_id) == [Started(), TextDelta("Hi")]


def test_m5_embeddings_are_read() -> None:
    found = call.read_embed(b'{"model":"m","embeddings":[[0.5,1],[2,3]],"total_duration":5,"prompt_eval_count":4}')
    assert found.vectors == ([0.5, 1.0], [2.0, 3.0])
    assert (found.model, found.prompt_tokens, found.total, found.load) == ("m", 4, 5, 0)
    assert call.read_embed(b'{"embeddings":[],"prompt_eval_count":null}').prompt_tokens is None
    for bad in (b"", b"{}", b'{"embeddings":[null]}', b'{"embedding":[1]}', b'{"embeddings":[["a"]]}'):
        with pytest.raises(BackendError, match="not Ollama's"):
            call.read_embed(bad)


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (404, b'{"error":"model \'x\' not found"}', ModelNotFound, "model 'x' not found"),
        (400, b'{"error":"\\"x\\" does not support thinking"}', InvalidRequest, '"x" does not support thinking'),
        (503, b'{"error":"server busy"}', Busy, "server busy"),
        (500, b'{"error":{"message":"boom"}}', BackendError, "boom"),
        (504, b"", BackendTimeout, "the backend answered with status 504"),
        (502, b"<html>secret</html>", BackendError, "the backend answered with status 502"),
        (500, b'{"detail":"x"}', BackendError, "the backend answered with status 500"),
        (500, b"[]", BackendError, "the backend answered with status 500"),
    ],
)
def test_m5_a_refusal_is_read(status: int, body: bytes, kind: type[GatewayError], text: str) -> None:
    error = call.read_error(status, body, "7")
    assert type(error) is kind
    assert error.message == text
    assert error.retry_after == (7 if kind is Busy else None)
