"""OpenAI's dialect, us as server: what is refused and how it is worded, and the answers that stories do not tell."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dialect import Ask, EmbedAsk, Stamp
from adapters.openai import serve
from adapters.openai.messages import arguments_text
from canonical.errors import (
    BackendError,
    Busy,
    Conflict,
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotImplementedHere,
    Unauthorized,
)
from canonical.events import Completion, Event, Finished, Started, TextDelta, TokenLogprob, ToolCallDelta, Usage, fold
from canonical.limits import CHOICES
from canonical.models import Capability, ModelInfo
from canonical.requests import Embeddings, Output, ToolChoice

STAMP = Stamp("1", lambda: 1_700_000_000_999_999_999)
USER = {"role": "user", "content": "Hello"}


def chat(**fields: Any) -> Ask:
    return serve.read_chat(json.dumps({"model": "m", "messages": [USER], **fields}).encode())


def completion(**fields: Any) -> Ask:
    return serve.read_completion(json.dumps({"model": "m", "prompt": "Hello", **fields}).encode())


def embeddings(**fields: Any) -> EmbedAsk:
    return serve.read_embeddings(json.dumps({"model": "m", "input": "Hello", **fields}).encode())


def say(text: str, usage: Usage | None = None, reason: Any = "stop") -> Completion:
    return fold([Started("real"), TextDelta(text), Finished(reason, usage)])


def whole(ask: Ask, *completions: Completion) -> Any:
    return json.loads(ask.whole(completions, STAMP))


def stream(ask: Ask, *events: tuple[Event, int]) -> list[Any]:
    encoder = ask.encoder(STAMP)
    data = b"".join(encoder.feed(event, choice) for event, choice in events) + encoder.finish()
    *frames, done, empty = data.split(b"\n\n")
    assert (done, empty) == (b"data: [DONE]", b"")
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames]


# What is refused

WRONG_CHAT: list[tuple[dict[str, Any], str, str | None]] = [
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": "Hello"}, "invalid_type", "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "invalid_type", "messages[0].content"),
    ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value", "messages[0].role"),
    ({"messages": [USER, {"role": "tool", "content": "x"}]}, "missing_required_parameter", "messages[1].tool_call_id"),
    ({"messages": [{"role": "function", "content": "x"}]}, "missing_required_parameter", "messages[0].name"),
    (
        {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
        "missing_required_parameter",
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "missing_required_parameter",
        "messages[0].content[0].text",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        "unsupported_value",
        "messages[0].content[0].type",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "missing_required_parameter",
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "missing_required_parameter",
        "messages[0].content[0].input_audio",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]}]},
        "invalid_value",
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x/y"}}]}]},
        "invalid_value",
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "/etc/passwd"}]}]},
        "invalid_value",
        "messages[0].content[0].image_url",
    ),
    (
        {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": "https://x/y"}]}]},
        "invalid_value",
        "messages[0].content[0]",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]},
        "unsupported_value",
        "messages[0].tool_calls[0].type",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]},
        "missing_required_parameter",
        "messages[0].tool_calls[0].function.name",
    ),
    ({"temperature": 2.5}, "invalid_value", "temperature"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"top_p": -0.1}, "invalid_value", "top_p"),
    ({"seed": 2**63}, "invalid_value", "seed"),
    ({"max_tokens": 2**31}, "invalid_value", "max_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"logit_bias": {"1": 101}}, "invalid_value", "logit_bias[...]"),
    ({"n": 0}, "invalid_value", "n"),
    ({"n": CHOICES + 1}, "invalid_value", "n"),
    ({"stream": "perhaps"}, "invalid_type", "stream"),
    ({"top_logprobs": 5}, "invalid_value", "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    ({"modalities": ["text", "audio"]}, "unsupported_value", "modalities"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_value", "tools[0].type"),
    ({"tools": [{"type": "function", "function": {}}]}, "missing_required_parameter", "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "invalid_value", "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
        "invalid_type",
        "tools[0].function.parameters",
    ),
    ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    ({"tool_choice": "perhaps"}, "unsupported_value", "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "invalid_value", "tool_choice"),
    ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "unsupported_value", "tool_choice.type"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "invalid_value", "function_call"),
    ({"response_format": {"type": "xml"}}, "unsupported_value", "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    ({"response_format": {"type": "json_object", "schema": [1]}}, "invalid_type", "response_format.schema"),
    ({"response_format": "json"}, "invalid_type", "response_format"),
    ({"grammar": "root ::= " + "(" * 300 + '"a"' + ")" * 300}, "invalid_value", "grammar"),
    ({"json_schema": {"enum": list(range(5000))}}, "invalid_value", "json_schema"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_CHAT)
def test_a_wrong_chat_request_names_its_field(fields: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


WRONG_COMPLETION: list[tuple[dict[str, Any], str, str | None]] = [
    ({"prompt": 5}, "invalid_type", "prompt"),
    ({"prompt": []}, "invalid_value", "prompt"),
    ({"prompt": [[]]}, "invalid_value", "prompt"),
    ({"prompt": [1, "x"]}, "invalid_value", "prompt"),
    ({"prompt": [-1]}, "invalid_value", "prompt[0]"),
    ({"prompt": ["x"] * 9, "n": 16}, "invalid_value", "prompt"),
    ({"n": 17}, "invalid_value", "n"),
    ({"n": -1}, "invalid_value", "n"),
    ({"best_of": 3}, "unsupported_value", "best_of"),
    ({"logprobs": 6}, "invalid_value", "logprobs"),
    ({"echo": True, "max_tokens": 0, "logprobs": 1}, "unsupported_value", "max_tokens"),
    ({"echo": True, "logprobs": 1}, "unsupported_value", "echo"),
    ({"echo": True, "prompt": [1, 2]}, "unsupported_value", "echo"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_COMPLETION)
def test_a_wrong_completion_request_names_its_field(fields: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


WRONG_EMBEDDINGS: list[tuple[dict[str, Any], str, str | None]] = [
    ({"input": ""}, "invalid_value", "input[0]"),
    ({"input": ["x", ""]}, "invalid_value", "input[1]"),
    ({"input": []}, "invalid_value", "input"),
    ({"input": [[]]}, "invalid_value", "input[0]"),
    ({"input": ["x", 1]}, "invalid_value", "input"),
    ({"input": {"content": []}}, "invalid_type", "input"),
    ({"input": ["x"] * 2049}, "invalid_value", "input"),
    ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
    ({"dimensions": 0}, "invalid_value", "dimensions"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_EMBEDDINGS)
def test_a_wrong_embeddings_request_names_its_field(fields: dict[str, Any], code: str, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embeddings(**fields)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)


READERS = (serve.read_chat, serve.read_completion, serve.read_embeddings)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b'{"model":"a","model":"b"}', b'{"prompt":"\\ud83d","input":"\\ud83d"', b"\xff"]
)
def test_what_is_no_request_is_refused(read: Callable[[bytes], Any], body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(body)


def test_half_a_surrogate_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        serve.read_completion(b'{"prompt":"\\ud83d"}')


@given(
    st.dictionaries(
        st.sampled_from(
            ["model", "messages", "prompt", "input", "n", "tools", "stop", "tool_choice", "logprobs", "seed"]
        ),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**64 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["role", "content", "type", "function", "name", "text", "tool_calls", "id"]), inner
                )
            ),
        ),
    )
)
def test_no_body_whatsoever_is_our_fault(fields: dict[str, Any]) -> None:
    for read in READERS:
        with contextlib.suppress(InvalidRequest):
            read(json.dumps(fields).encode())


# Errors


@pytest.mark.parametrize(
    ("error", "status", "kind", "param", "code"),
    [
        (InvalidRequest("why", param="n"), 400, "invalid_request_error", "n", "invalid_value"),
        (Unauthorized("why"), 401, "invalid_request_error", None, "invalid_api_key"),
        (Forbidden("why"), 403, "permission_error", None, "forbidden"),
        (ModelNotFound("why"), 404, "invalid_request_error", "model", "model_not_found"),
        (MethodNotAllowed("why"), 405, "invalid_request_error", None, "method_not_allowed"),
        (Conflict("why"), 409, "conflict_error", None, "conflict"),
        (Busy("why", status=429, code="rate_limit_exceeded"), 429, "rate_limit_error", None, "rate_limit_exceeded"),
        (Busy("why", status=429, code="insufficient_quota"), 429, "insufficient_quota", None, "insufficient_quota"),
        (GatewayError("why"), 500, "server_error", None, None),
        (NotImplementedHere("why"), 501, "server_error", None, "not_implemented"),
        (BackendError("why"), 502, "server_error", None, "backend_error"),
        (Busy("why"), 503, "server_error", None, "server_busy"),
    ],
)
def test_m1_errors_have_all_four_keys(
    error: GatewayError, status: int, kind: str, param: str | None, code: str | None
) -> None:
    assert serve.error_status(error) == status
    words = "why: the model does not exist" if isinstance(error, ModelNotFound) else "why"
    told = {"message": words, "type": kind, "param": param, "code": code}
    assert json.loads(serve.error_body(error)) == {"error": told}


def test_m4_a_form_without_its_schema_is_any_object() -> None:
    # The vendor's reference calls ``schema`` optional.
    for named in ({"name": "a"}, {"name": "a", "schema": None}):
        form = {"type": "json_schema", "json_schema": named}
        assert chat(response_format=form).requests[0].output == Output("json")


def test_m4_an_empty_suffix_is_none() -> None:
    for prompt in ("a", ["a", "b"], [1, 2]):
        asked = {"model": "m", "prompt": prompt, "suffix": ""}
        for request in serve.read_completion(json.dumps(asked).encode()).requests:
            assert request.prompt is not None
            assert request.prompt.suffix is None


@pytest.mark.parametrize("text", ["\x85", "\u2003", "\xa0null"])
def test_m5_only_the_white_space_of_json_is_nothing(text: str) -> None:
    assert arguments_text(text) == text
    assert arguments_text(" \t\r\n") == "{}"


def test_a_failing_stream_ends_in_its_error_frame() -> None:
    encoder = chat(stream=True).encoder(STAMP)
    encoder.feed(Started("m"))
    frame = encoder.fail(BackendError('gone\n\ndata: "'))
    assert frame.startswith(b'data: {"error":{')
    assert frame.count(b"\n") == 2
    assert frame.endswith(b"\n\n")
    assert b"[DONE]" not in frame
    assert b"finish_reason" not in frame


# Answers


def test_m1_usage_comes_only_when_asked_for() -> None:
    events: Sequence[tuple[Event, int]] = [(Started("m"), 0), (TextDelta("x"), 0), (Finished("stop", Usage(3, 2)), 0)]
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        frames = stream(chat(stream=True, **options), *events)
        assert all("usage" not in frame and len(frame["choices"]) == 1 for frame in frames)
        assert frames[-1]["choices"][0]["finish_reason"] == "stop"
    frames = stream(chat(stream=True, stream_options={"include_usage": True}), *events)
    assert [frame["usage"] is None for frame in frames] == [True, True, True, False]
    assert frames[-1]["choices"] == []


def test_usage_that_nobody_counted_is_not_made_up() -> None:
    ask = chat(stream=True, stream_options={"include_usage": True})
    frames = stream(ask, (Started("m"), 0), (Finished("stop"), 0))
    assert all(frame["usage"] is None for frame in frames)
    assert "usage" not in whole(chat(), say("x"))


def test_n_makes_several_requests_that_differ_in_their_seed() -> None:
    assert len(chat(n=3).requests) == 3
    assert [request.sampling.seed for request in chat(n=3, seed=7).requests] == [7, 8, 9]
    assert [request.sampling.seed for request in chat(n=2, seed=-1).requests] == [-1, -1]
    assert [request.sampling.seed for request in chat(n=2, seed=2**63 - 1).requests] == [2**63 - 1, 0]


def test_m1_choices_of_a_stream_bear_their_index_and_sum_their_usage() -> None:
    ask = chat(stream=True, n=2, stream_options={"include_usage": True})
    frames = stream(
        ask,
        (Started("m"), 0),
        (TextDelta("a"), 0),
        (Started("m"), 1),
        (TextDelta("b"), 1),
        (Finished("length", Usage(5, 2, 1, 1)), 1),
        (TextDelta("c"), 0),
        (Finished("stop", Usage(5, 3, 4)), 0),
    )
    *pieces, last = frames
    told = [(frame["choices"][0]["index"], frame["choices"][0]["delta"].get("content")) for frame in pieces]
    assert told == [(0, ""), (0, "a"), (1, ""), (1, "b"), (1, None), (0, "c"), (0, None)]
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    assert len({(frame["id"], frame["created"], frame["model"]) for frame in frames}) == 1


def test_m1_choices_of_a_whole_answer() -> None:
    reply = whole(chat(n=2), say("a", Usage(5, 2)), say("b", Usage(5, 3), "content_filter"))
    assert [
        (choice["index"], choice["message"]["content"], choice["finish_reason"]) for choice in reply["choices"]
    ] == [
        (0, "a", "stop"),
        (1, "b", "content_filter"),
    ]
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (5, 5)
    assert (reply["created"], reply["model"]) == (1_700_000_000, "m")


def test_a_prompt_list_times_n_gives_p_times_n_choices() -> None:
    ask = completion(prompt=["a", "b"], n=2, echo=True, stream_options={"include_usage": True})
    assert [request.prompt.text for request in ask.requests if request.prompt] == ["a", "a", "b", "b"]
    reply = whole(ask, say("1", Usage(3, 1)), say("2", Usage(3, 1)), say("3", Usage(4, 1)), say("4", Usage(4, 1)))
    assert [choice["text"] for choice in reply["choices"]] == ["a1", "a2", "b3", "b4"]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (7, 4)
    frames = stream(
        ask, *[(Started("m"), i) for i in range(4)], *[(Finished("stop", Usage(3, 1)), i) for i in range(4)]
    )
    assert [frame["choices"][0]["text"] for frame in frames[:4]] == ["a", "a", "b", "b"]
    assert frames[-1]["usage"]["prompt_tokens"] == 6


def test_prompts_of_token_ids() -> None:
    assert [request.prompt.tokens for request in completion(prompt=[[1, 2], [3]]).requests if request.prompt] == [
        (1, 2),
        (3,),
    ]
    assert [request.prompt.tokens for request in completion(prompt=[1, 2]).requests if request.prompt] == [(1, 2)]


def test_the_limit_of_a_completion_is_16_unless_said() -> None:
    limits = [
        completion(**fields).requests[0].sampling.max_tokens for fields in ({}, {"max_tokens": 5}, {"max_tokens": -1})
    ]
    assert limits == [16, 5, None]


def test_a_completion_has_no_words_for_tools() -> None:
    frames = stream(
        completion(stream=True), (Started("m"), 0), (ToolCallDelta(0, "a", "f"), 0), (Finished("tool_calls"), 0)
    )
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == ["stop"]


def test_text_offsets_go_on_over_a_stream() -> None:
    pieces = [TextDelta(text, (TokenLogprob(text, -1.0),)) for text in ("ab", "c", "d")]
    frames = stream(completion(stream=True, logprobs=0), (Started("m"), 0), *[(piece, 0) for piece in pieces])
    assert [frame["choices"][0]["logprobs"]["text_offset"] for frame in frames] == [[0], [2], [3]]
    assert frames[0]["choices"][0]["logprobs"]["top_logprobs"] == [None]


def test_the_answer_bears_the_name_asked_for_else_the_models_own() -> None:
    assert whole(chat(model=None), say("x"))["model"] == "real"
    assert whole(completion(model=None), say("x"))["model"] == "real"
    assert stream(chat(model=None), (Started("real"), 0))[0]["model"] == "real"
    assert stream(completion(model=None), (Started("real"), 0), (TextDelta("x"), 0))[0]["model"] == "real"
    assert stream(chat(model='a"/b'), (Started("real"), 0))[0]["model"] == 'a"/b'


LEGACY = {"functions": [{"name": "f"}], "function_call": "auto"}


def test_legacy_functions_are_answered_in_their_own_form() -> None:
    ask = chat(**LEGACY)
    assert ask.requests[0].parallel_tool_calls is False
    assert ask.requests[0].tool_choice == ToolChoice("auto")
    events = [Started("m"), ToolCallDelta(0, "a", "f"), ToolCallDelta(0, arguments="{}"), Finished("tool_calls")]
    frames = stream(ask, *[(event, 0) for event in events])
    assert [frame["choices"][0]["delta"] for frame in frames[1:]] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
        {},
    ]
    assert frames[-1]["choices"][0]["finish_reason"] == "function_call"
    choice = whole(ask, fold(events))["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert choice["finish_reason"] == "function_call"


def test_the_legacy_form_never_drops_a_second_call_in_silence() -> None:
    events = [Started("m"), ToolCallDelta(0, "a", "f"), ToolCallDelta(1, "b", "f"), Finished("tool_calls")]
    with pytest.raises(BackendError):
        stream(chat(**LEGACY), *[(event, 0) for event in events])
    with pytest.raises(BackendError):
        whole(chat(**LEGACY), fold(events))


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


@pytest.mark.parametrize(
    ("choice", "tools", "read"),
    [
        (None, ["f", "g"], None),
        ("none", ["f", "g"], ToolChoice("none")),
        ("required", ["f", "g"], ToolChoice("required")),
        ({"type": "auto"}, ["f", "g"], ToolChoice("auto")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}},
            ["g"],
            ToolChoice("required"),
        ),
    ],
)
def test_tool_choice(choice: Any, tools: list[str], read: ToolChoice | None) -> None:
    (request,) = chat(tools=TOOLS, tool_choice=choice).requests
    assert ([tool.name for tool in request.tools], request.tool_choice) == (tools, read)


@pytest.mark.parametrize(
    ("arguments", "read"),
    [('{"a":1}', '{"a":1}'), ("", "{}"), ("null", "{}"), (None, "{}"), ({"a": 1}, '{"a":1}'), ("{bad", "{bad")],
)
def test_arguments_in_whatever_form(arguments: Any, read: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (request,) = chat(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [call]}]).requests
    assert getattr(request.messages[1].parts[0], "arguments", None) == read


@pytest.mark.parametrize(("effort", "think"), [("xhigh", "max"), ("minimal", "minimal"), ("novel", None), (None, None)])
def test_reasoning_effort_is_never_refused(effort: str | None, think: str | None) -> None:
    assert chat(reasoning_effort=effort).requests[0].think == think
    assert chat(reasoning={"effort": effort}).requests[0].think == think


# Embeddings and models


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1), min_size=1))
def test_m1_embeddings_in_both_encodings(vectors: list[list[float]]) -> None:
    answer = Embeddings(model="real", vectors=tuple(vectors), prompt_tokens=4)
    reply = json.loads(embeddings().whole(answer))
    assert reply["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert (reply["object"], reply["model"]) == ("list", "m")
    assert [(row["object"], row["index"]) for row in reply["data"]] == [("embedding", i) for i in range(len(vectors))]
    assert [row["embedding"] for row in reply["data"]] == vectors
    packed = json.loads(embeddings(encoding_format="base64").whole(answer))
    for row, vector in zip(packed["data"], vectors, strict=True):
        assert list(struct.unpack(f"<{len(vector)}f", base64.b64decode(row["embedding"]))) == vector


def test_embeddings_request() -> None:
    request = embeddings(input=["a", "b"], dimensions=8).request
    assert (request.model, request.inputs, request.dimensions) == ("m", ("a", "b"), 8)
    assert embeddings(input=[1, 2]).request.inputs == ((1, 2),)
    assert embeddings(input=[[1, 2], [3]]).request.inputs == ((1, 2), (3,))
    assert embeddings(input="a").request.inputs == ("a",)
    assert "usage" not in json.loads(embeddings().whole(Embeddings(model="x", vectors=([1.0],))))


def test_m1_models() -> None:
    bare = ModelInfo(id="a/b:c")
    full = ModelInfo(
        id="m",
        modified=1_700_000_000_999_999_999,
        size=5,
        parameter_count=6,
        context_length=7,
        owner="me",
        capabilities=frozenset({Capability.CHAT, Capability.VISION}),
    )
    assert json.loads(serve.model_reply(bare)) == {
        "id": "a/b:c",
        "object": "model",
        "created": 0,
        "owned_by": "dragoman",
    }
    listed = json.loads(serve.models_reply([bare, full]))
    assert listed["object"] == "list"
    assert listed["data"][1] == {
        "id": "m",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "me",
        "meta": {"n_ctx_train": 7, "n_params": 6, "size": 5},
        "max_model_len": 7,
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "capabilities": ["chat", "vision"],
    }
