"""What we read of Ollama's clients: fields and defaults, leniency, and Ollama's own words for what is wrong."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from adapters.dialect import Ask
from adapters.ollama import serve
from canonical.errors import (
    BackendError,
    BackendTimeout,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotImplementedHere,
)
from canonical.messages import Image, Message, Text, ToolCall, ToolResult
from canonical.requests import Generate, Output, Sampling


def chat(**fields: Any) -> Generate:
    body = {"model": "pip", "messages": [{"role": "user", "content": "hi"}]} | fields
    ask = serve.read_chat(json.dumps(body).encode())
    assert isinstance(ask, Ask)
    (request,) = ask.requests
    assert ask.stream == request.stream
    return request


def generate(**fields: Any) -> Generate:
    ask = serve.read_generate(json.dumps({"model": "pip", "prompt": "hi"} | fields).encode())
    assert isinstance(ask, Ask)
    return ask.requests[0]


def refused(read: Callable[[bytes], object], body: object) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        read(body if isinstance(body, bytes) else json.dumps(body).encode())
    return caught.value


def test_m2_a_chat_is_read_with_ollamas_defaults() -> None:
    request = chat()
    assert request.model == "pip"
    assert request.messages == (Message("user", (Text("hi"),)),)
    assert request.stream is True
    assert request.sampling == Sampling()
    assert (request.prompt, request.tools, request.output, request.think) == (None, (), None, None)
    assert (request.top_logprobs, request.load.context, request.keep_alive) == (None, None, None)
    assert request.origin.dialect == "ollama"


def test_m2_null_is_absent_and_unknown_fields_are_passed_over() -> None:
    names = ("tools", "stream", "format", "keep_alive", "options", "think", "logprobs", "top_logprobs", "whatever")
    assert chat(**dict.fromkeys(names)).messages == chat().messages
    assert chat(**dict.fromkeys(names)).stream is True
    assert generate(system=None, suffix=None, raw=None, images=None).prompt is None


def test_m3_pictures_beside_a_tools_result_follow_it_as_the_users() -> None:
    # Servers of other dialects, and the engines inside, have no place for them in a tool's message.
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
    called = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {}}}] * 2}
    shown = {"role": "tool", "tool_name": "look", "content": "see", "images": [picture]}
    asked = {"role": "user", "content": "which color?"}
    (_, first, second, last) = chat(messages=[called, shown, shown, asked]).messages
    assert [[type(part) for part in message.parts] for message in (first, second)] == [[ToolResult]] * 2
    assert (last.role, [type(part) for part in last.parts]) == ("user", [Image, Image, Text])
    # Without a word of the user's, at the end and before the model's next turn.
    assert [message.role for message in chat(messages=[called, shown]).messages] == ["assistant", "tool", "user"]
    roles = [message.role for message in chat(messages=[called, shown, called, shown, asked]).messages]
    assert roles == ["assistant", "tool", "user", "assistant", "tool", "user"]


def test_m2_what_the_official_python_client_always_sends_means_nothing() -> None:
    request = chat(tools=[], stream=False)
    assert request.tools == ()
    assert request.stream is False


@pytest.mark.parametrize(
    "body",
    [
        b'{"Model":"pip","MESSAGES":[{"Role":"user","Content":"hi"}],"Stream":false}',
        b'{"MODEL" : "pip","messages":[{"ROLE"\n: "user","content":"hi"}],"stream":false}',
        b'{"model":"pip","messages":[{"role":"USER","content":"hi"}],"Stream":false}',
    ],
)
def test_m2_keys_match_whatever_their_case(body: bytes) -> None:
    ask = serve.read_chat(body)
    assert isinstance(ask, Ask)
    assert ask.requests[0].messages == (Message("user", (Text("hi"),)),)
    assert ask.stream is False


def test_m2_keys_of_maps_keep_their_case() -> None:
    schema = {"type": "object", "properties": {"Stadt": {"type": "string"}}}
    request = chat(
        Tools=[{"Type": "function", "Function": {"Name": "f", "Parameters": schema}}],
        options={"Temperature": 0.5, "top_k": 3},
        messages=[
            {"role": "user", "content": "hi"},
            {"role": "assistant", "Tool_Calls": [{"Function": {"Name": "f", "Arguments": {"Stadt": "Graz"}}}]},
        ],
    )
    assert request.sampling == Sampling(top_k=3)
    assert request.tools[0].parameters is not None
    assert json.loads(bytes(request.tools[0].parameters)) == schema
    assert request.messages[1].parts == (ToolCall("call_1_0", "f", '{"Stadt":"Graz"}'),)


def test_m2_two_spellings_of_one_key_are_refused() -> None:
    error = refused(serve.read_chat, b'{"model":"pip","Model":"other","messages":[]}')
    assert error.status == 400
    assert "'model' stands twice" in error.message


def test_m2_an_upper_case_key_never_reaches_a_backend_beside_ours() -> None:
    ask = serve.read_chat(b'{"Model":"other","messages":[{"role":"user"}],"Foo":1}')
    assert isinstance(ask, Ask)
    assert json.loads(ask.requests[0].origin.body) == {"model": "other", "messages": [{"role": "user"}], "foo": 1}


# Errors


@pytest.mark.parametrize(
    ("read", "body", "status", "text"),
    [
        (serve.read_chat, b"", 400, "missing request body"),
        (serve.read_generate, b" \n", 400, "missing request body"),
        (serve.read_chat, {"messages": []}, 400, "model is required"),
        (serve.read_chat, {"model": "", "messages": []}, 400, "model is required"),
        (serve.read_show, {}, 400, "model is required"),
        (serve.read_embeddings, {"prompt": "x"}, 400, "model is required"),
        (serve.read_generate, {"prompt": "x"}, 404, "model '' not found"),
        (serve.read_embed, {"input": "x"}, 404, "model '' not found"),
        (serve.read_embed, {"model": "m", "input": 5}, 400, "invalid input type"),
        (serve.read_embed, {"model": "m", "input": 0}, 400, "invalid input type"),
        (serve.read_embed, {"model": "m", "input": {}}, 400, "invalid input type"),
        (serve.read_embed, {"model": "m", "input": ["a", 1]}, 400, "invalid input type"),
        (
            serve.read_chat,
            {"model": "m", "messages": "hi"},
            400,
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type array",
        ),
        (
            serve.read_chat,
            {"model": 5},
            400,
            "json: cannot unmarshal number into Go struct field ChatRequest.model of type string",
        ),
        (
            serve.read_chat,
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
            400,
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
        ),
        (serve.read_chat, [], 400, "json: cannot unmarshal array into Go value of type ChatRequest"),
        (
            serve.read_generate,
            {"model": "m", "stream": "false"},
            400,
            "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool",
        ),
        (
            serve.read_chat,
            {
                "model": "m",
                "messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
            },
            400,
            (
                "json: cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function.arguments"
                " of type api.ToolCallFunctionArguments"
            ),
        ),
    ],
)
def test_m2_what_is_wrong_is_said_in_ollamas_words(
    read: Callable[[bytes], object], body: object, status: int, text: str
) -> None:
    error = refused(read, body)
    assert serve.error_status(error) == status
    assert json.loads(serve.error_body(error)) == {"error": text}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"model":"m"} {"model":"n"}',
        b'{"model":"m"}garbage',
        b'{"model":"m","model":"n"}',
        b'{"model":"\xff"}',
        b'{"model":"m","keep_alive":NaN}',
        b'{"model":"\\ud800"}',
        b'{"Model":"\\ud800"}',
        b"[" * 100 + b"]" * 100,
    ],
)
@pytest.mark.parametrize(
    "read", [serve.read_chat, serve.read_generate, serve.read_embed, serve.read_embeddings, serve.read_show]
)
def test_m2_a_body_that_is_not_one_strict_json_value_is_refused(read: Callable[[bytes], object], body: bytes) -> None:
    assert refused(read, body).status == 400


def test_m2_a_number_too_large_for_its_field_is_refused() -> None:
    assert refused(serve.read_generate, {"model": "m", "prompt": "x", "top_logprobs": 2**64 - 1}).status == 400


@pytest.mark.parametrize("count", [-1, 21])
def test_m2_top_logprobs_has_its_range(count: int) -> None:
    error = refused(serve.read_chat, {"model": "m", "messages": [{"role": "user"}], "top_logprobs": count})
    assert (error.status, error.message) == (400, "top_logprobs must be between 0 and 20")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"logprobs": False, "top_logprobs": 3}, None),
        ({"top_logprobs": 3}, None),
    ],
)
def test_m2_logprobs_are_given_only_when_asked(fields: dict[str, Any], expected: int | None) -> None:
    assert chat(**fields).top_logprobs == expected


def test_m2_a_missing_model_is_worded_by_its_route() -> None:
    error = ModelNotFound("model 'x\"y' not found", param="model")
    assert json.loads(serve.error_body(error)) == {"error": "model 'x\"y' not found"}
    assert json.loads(serve.embed_error_body(error)) == {"error": 'model "x"y" not found, try pulling it first'}
    for other in (ModelNotFound("blob not found"), InvalidRequest("no")):
        assert serve.embed_error_body(other) == serve.error_body(other)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Busy("server busy, please try again.  full"), 503, "server busy, please try again.  full"),
        (Busy("slow down", status=429, code="rate_limit_exceeded"), 429, "slow down"),
        (BackendTimeout("silent"), 504, "silent"),
        (NotImplementedHere("later"), 501, "later"),
        (BackendError('line\nbreak "quoted"'), 502, 'line\nbreak "quoted"'),
        (GatewayError("odd \udcff bytes"), 500, "odd ? bytes"),
    ],
)
def test_m2_an_error_is_one_text(error: GatewayError, status: int, text: str) -> None:
    body = serve.error_body(error)
    assert serve.error_status(error) == status
    assert json.loads(body) == {"error": text}
    assert b"\n" not in body


# Values


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (0, 0),
        (30, 30),
        (1.5, 1.5),
        (-1, -1),
        (-0.5, -1),
        (1e300, -1),
        ("0", 0),
        ("0s", 0),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("+2s", 2),
        ("100ms", 0.1),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("1ns", 1e-9),
        ("-1s", -1),
        ("-5m", -1),
        ("30", 30),
        ("-1", -1),
        ("9999999h", -1),
    ],
)
def test_m2_keep_alive_is_a_number_or_a_duration(value: Any, seconds: float | None) -> None:
    assert chat(keep_alive=value).keep_alive == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "Unsupported type: bool"),
        ([], "Unsupported type: array"),
        ({}, "Unsupported type: object"),
        ("", 'time: invalid duration ""'),
        ("-", 'time: invalid duration "-"'),
        ("soon", 'time: invalid duration "soon"'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("1m30", 'time: missing unit in duration "1m30"'),
        ("1..s", 'time: invalid duration "1..s"'),
        ("9" * 200, 'time: invalid duration "' + "9" * 100 + '"'),
    ],
)
def test_m2_any_other_keep_alive_is_refused(value: Any, text: str) -> None:
    error = refused(serve.read_generate, {"model": "m", "prompt": "x", "keep_alive": value})
    assert (error.status, error.message) == (400, text)


def test_m2_options_are_renamed() -> None:
    options = {
        "temperature": 1,
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
        "stop": ["\n", "END", ""],
        "num_ctx": 8192,
    }
    request = chat(options=options)
    assert request.load.context == 8192
    assert request.sampling == Sampling(
        temperature=1.0,
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
        stop=("\n", "END"),
    )


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({"num_predict": -1}, Sampling()),
        ({"num_predict": -2, "seed": -1, "num_ctx": 0}, Sampling()),
        ({"num_predict": 7.9, "seed": 42.0}, Sampling(max_tokens=7, seed=42)),
        ({"num_predict": 0}, Sampling(max_tokens=0)),
        ({"stop": "END"}, Sampling(stop=("END",))),
        ({"stop": []}, Sampling()),
        ({"temperature": None, "stop": None}, Sampling()),
        ({"mirostat": "yes", "use_mlock": 5, "tfs_z": [], "Temperature": "hot"}, Sampling()),
        ({"num_gpu": 0, "use_mmap": False, "num_thread": 4.0}, Sampling()),
        ({}, Sampling()),
    ],
)
def test_m2_options_are_lenient_where_ollama_is(options: dict[str, Any], sampling: Sampling) -> None:
    request = generate(options=options)
    assert request.sampling == sampling
    assert request.load.context is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_ctx": "4096"}, 'option "num_ctx" must be of type integer'),
        ({"num_gpu": True}, 'option "num_gpu" must be of type integer'),
        ({"seed": 1e300}, 'option "seed" must be of type integer'),
        ({"seed": 2**64 - 1}, 'option "seed" must be of type integer'),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"top_p": False}, 'option "top_p" must be of type float32'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": 5}, 'option "stop" must be of type array'),
        ({"stop": ["a", 5]}, 'option "stop" must be of an array of strings'),
    ],
)
@pytest.mark.parametrize("read", [serve.read_chat, serve.read_generate, serve.read_embed, serve.read_embeddings])
def test_m2_an_option_of_a_wrong_type_is_named(
    read: Callable[[bytes], object], options: dict[str, Any], text: str
) -> None:
    error = refused(read, {"model": "m", "prompt": "x", "messages": [{"role": "user"}], "options": options})
    assert (error.status, error.message) == (400, text)


@pytest.mark.parametrize(
    ("value", "think"),
    [(True, "on"), (False, "off"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max")],
)
def test_m2_think_is_a_boolean_or_a_level(value: Any, think: str) -> None:
    assert chat(think=value).think == think


@pytest.mark.parametrize("value", ["x", "on", "minimal", "true", ""])
def test_m2_another_think_level_is_refused(value: str) -> None:
    error = refused(serve.read_generate, {"model": "m", "prompt": "x", "think": value})
    assert error.status == 400
    assert error.message == (f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)')


def test_m2_think_of_another_type_is_refused() -> None:
    assert "think must be a boolean or string" in refused(serve.read_chat, _think(5)).message
    assert "think must be a boolean or string" in refused(serve.read_chat, _think(["low"])).message


def _think(value: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user"}], "think": value}


def test_m2_format_is_json_or_a_schema() -> None:
    assert chat(format="json").output == Output("json")
    assert chat(format="").output is None
    output = chat(format={"type": "object"}).output
    assert output is not None
    assert output.kind == "schema"
    assert output.schema is not None
    assert json.loads(bytes(output.schema)) == {"type": "object"}


@pytest.mark.parametrize("value", ["xml", 5, True, [], ["json"]])
def test_m2_another_format_is_refused(value: Any) -> None:
    error = refused(serve.read_chat, {"model": "m", "messages": [{"role": "user"}], "format": value})
    assert error.status == 400
    assert error.message.startswith("invalid format: ")
    assert error.message.endswith('expected "json" or a valid JSON Schema object')
