"""OpenAI's dialect, us as client: what servers get wrong is repaired, what is broken is said to be."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from adapters.openai import call, serve
from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest, ModelNotFound, Unsupported
from canonical.events import (
    Check,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
    fold,
)
from canonical.messages import Message, Text, ToolCall, ToolResult
from canonical.models import Capability
from canonical.requests import Embed, Generate, Origin, Prompt, Sampling

DONE = b"data: [DONE]\n\n"


def frame(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"model": "up", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def ids() -> Any:
    numbers = itertools.count()
    return lambda: f"new_{next(numbers)}"


def read(*values: Any) -> list[Event]:
    """The checked events of a stream of these chunks."""
    reader = call.ChatReader(ids())
    events = reader.feed(b"".join(value if isinstance(value, bytes) else frame(value) for value in values))
    events += reader.finish()
    check = Check()
    for event in events:
        check.feed(event)
    check.finish()
    return events


def read_text(*values: Any) -> list[Event]:
    reader = call.CompletionReader()
    return reader.feed(b"".join(frame(value) for value in values)) + reader.finish()


# The end of a stream


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize(
    "values",
    [
        (delta("stop"), {"choices": [], "usage": USAGE}, DONE),
        (delta("stop"), {"choices": [], "usage": USAGE}),
        (delta("stop"), {"usage": USAGE}, DONE),
        (delta("stop"), {"choices": None, "usage": USAGE}, DONE, DONE),
        ({**delta("stop"), "usage": USAGE}, DONE),
        ({**delta(content=""), "usage": {}}, delta("stop"), {"choices": [], "usage": USAGE}, DONE),
        (delta("stop"), {"choices": [], "usage": USAGE}, DONE, delta(content="after the end")),
        (delta("stop"), b": ping\n\n", {"choices": [], "usage": {**USAGE, "prompt_tokens_details": None}}, DONE),
        (delta(""), delta("stop"), {"choices": [], "usage": {**USAGE, "completion_tokens_details": {}}}, DONE),
    ],
)
def test_the_finish_waits_for_usage(values: tuple[Any, ...]) -> None:
    assert read(*values) == [Started("up"), Finished("stop", Usage(3, 2))]


def test_usage_in_detail() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 2}}
    assert read({**delta("length"), "usage": {**USAGE, **details}})[-1] == Finished("length", Usage(3, 2, 1, 2))
    assert read(delta("stop"))[-1] == Finished("stop")
    assert read({**delta("stop"), "usage": {"prompt_tokens": 3, "completion_tokens": None}})[-1] == Finished(
        "stop", Usage(3, 0)
    )


@pytest.mark.parametrize(
    "values", [(), (delta(content="x"),), (delta(content="x"), DONE), (DONE,), (delta(content="x"), b"data: {}")]
)
def test_a_stream_without_a_finish_reason_is_a_failure(values: tuple[Any, ...]) -> None:
    with pytest.raises(BackendError) as caught:
        read(*values)
    assert caught.value.code == "incomplete_stream"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("function_call", "tool_calls"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons(word: str, reason: str) -> None:
    assert read(delta(word))[-1] == Finished(reason)  # type: ignore[arg-type]  # a str here


@pytest.mark.parametrize("word", ["error", "abort"])
def test_a_finish_reason_that_tells_of_a_failure(word: str) -> None:
    with pytest.raises(BackendError, match=word):
        read(delta(word))


# Failures in a stream


@pytest.mark.parametrize(
    ("data", "status", "code", "words"),
    [
        (frame({"error": {"message": "boom", "type": "server_error", "code": None}}), 502, "backend_error", "boom"),
        (frame({"error": "boom"}), 502, "backend_error", "boom"),
        (frame({"error": {"message": "boom", "code": 500}}), 500, "backend_error", "boom"),
        (frame({"error": {"message": "boom", "code": "503"}}), 503, "backend_unavailable", "boom"),
        (frame({"error": {"message": "boom", "type": "BadRequestError", "code": 400}}), 400, "invalid_value", "boom"),
        (frame({"error": {"message": "boom", "type": "invalid_request_error", "code": "x"}}), 400, "x", "boom"),
        (frame({"error": {"message": "slow", "type": "rate_limit_exceeded"}}), 429, "rate_limit_exceeded", "slow"),
        (frame({"error": {"message": "sk-key", "code": 401}}), 502, "backend_credentials", "credentials"),
        (frame({"error": {"no": "words"}}), 502, "backend_error", "reported a failure"),
        (frame({"error": [1]}), 502, "backend_error", "reported a failure"),
        (b'event: error\ndata: {"error":{"message":"boom"}}\n\n', 502, "backend_error", "boom"),
        (b'event: error\ndata: {"message":"boom"}\n\n', 502, "backend_error", "boom"),
        (b"event: error\ndata: boom\n\n", 502, "backend_error", "boom"),
        (b'event: error\ndata: "boom"\n\n', 502, "backend_error", "boom"),
        (b'error: {"code":500,"message":"boom","type":"server_error"}\n\n', 500, "backend_error", "boom"),
        (b"data: <html>\n\n", 502, "backend_error", "not in OpenAI's format"),
        (b"data: {\n\n", 502, "backend_error", "not in OpenAI's format"),
        (b"data: [1]\n\n", 502, "backend_error", "not in OpenAI's format"),
        (b'data: {"choices":[{"delta":{"content":5}}]}\n\n', 502, "backend_error", "not in OpenAI's format"),
        (b'data: {"choices":"x"}\n\n', 502, "backend_error", "not in OpenAI's format"),
    ],
)
def test_a_failure_in_the_stream(data: bytes, status: int, code: str, words: str) -> None:
    reader = call.ChatReader(ids())
    reader.feed(frame(delta(content="x")))
    with pytest.raises(GatewayError, match=words) as caught:
        reader.feed(data)
    assert (caught.value.status, caught.value.code) == (status, code)


# Text, reasoning, log probabilities


def test_reasoning_under_either_name_comes_before_text() -> None:
    events = read(delta(reasoning_content="a"), delta(reasoning="b", content="c"), delta("stop", content="d"))
    assert events[1:-1] == [ReasoningDelta("a"), ReasoningDelta("b"), TextDelta("c"), TextDelta("d")]


def test_a_refusal_is_text() -> None:
    assert fold(read(delta(refusal="I will not."), delta("stop"))).text == "I will not."


def test_odd_chunks_give_nothing() -> None:
    odd = [{"choices": [{"index": 0}]}, {"id": "x", "prompt_filter_results": []}, delta(role="assistant", content=None)]
    progress = {**delta(role="assistant"), "prompt_progress": {"total": 5}}
    assert read(*odd, progress, delta("stop")) == [Started(), Finished("stop")]


TOP = [{"token": "b", "logprob": -2, "bytes": None}, {"token": "c", "logprob": None}]


def test_log_probabilities() -> None:
    chunk = delta(content="a")
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": TOP}]}
    empty = delta(content="")
    empty["choices"][0]["logprobs"] = {"content": [{"token": "", "logprob": -3, "bytes": None, "top_logprobs": None}]}
    bare = delta(content="")
    bare["choices"][0]["logprobs"] = {"content": None}
    token = TokenLogprob("a", -1.0, (97,), (TokenLogprob("b", -2.0),))
    assert read(chunk, empty, bare, delta("stop"))[1:-1] == [
        TextDelta("a", (token,)),
        TextDelta("", (TokenLogprob("", -3.0),)),
    ]


def text_chunk(text: str | None, logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"model": "up", "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish}]}


def test_log_probabilities_of_completions_in_both_forms() -> None:
    lists = {"tokens": ["p", "a"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"a": -1.0, "b": -2.0}]}
    bare = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": None}
    tokens = {"content": [{"token": "a", "logprob": -1.0}]}
    events = read_text(
        text_chunk("a", lists),
        text_chunk("a", bare),
        text_chunk("a", tokens),
        text_chunk("a", {}),
        text_chunk(None),
        text_chunk("", finish="stop"),
    )
    top = (TokenLogprob("a", -1.0), TokenLogprob("b", -2.0))
    plain = TextDelta("a", (TokenLogprob("a", -1.0),))
    assert events == [
        Started("up"),
        TextDelta("a", (TokenLogprob("a", -1.0, None, top),)),
        plain,
        plain,
        TextDelta("a"),
        Finished("stop"),
    ]


# llama.cpp in this process: records without SSE, timings on the last


def test_records_of_an_engine_in_this_process() -> None:
    reader = call.ChatReader(ids())
    events = reader.feed_record(json.dumps(delta(role="assistant", content=None)).encode())
    events += reader.feed_record(json.dumps(delta(content="x")).encode())
    timings = {"cache_n": 4, "prompt_n": 6, "prompt_ms": 1.5, "predicted_n": 2, "predicted_ms": 2.5}
    events += reader.feed_record(json.dumps({**delta("stop"), "timings": timings, "__verbose": {"x": 1}}).encode())
    assert events == [Started("up"), TextDelta("x")]
    assert reader.finish() == [Finished("stop", Usage(10, 2, 4), Timings(prompt=1_500_000, eval=2_500_000))]
    assert reader.finish() == []


def test_timings_beside_usage() -> None:
    timings = {"cache_n": 1, "prompt_n": 2, "predicted_n": 2}
    end = read(delta("stop"), {"choices": [], "usage": USAGE, "timings": timings})[-1]
    assert end == Finished("stop", Usage(3, 2, 1), Timings())
    assert read({**delta("stop"), "timings": {"cache_n": 1}})[-1] == Finished("stop", None, Timings())


# Tool calls


def tool(
    index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    piece = {"index": index, "id": id, "function": function or None, "type": "function"}
    return delta(tool_calls=[{key: value for key, value in piece.items() if value is not None}])


F_G = (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", "{}"))


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [tool(0, "a", "f", ""), tool(0, arguments='{"x"'), tool(0, arguments=":1}"), tool(1, "b", "g", "{}")],
            id="by the book",
        ),
        pytest.param([tool(0, "a", "f", '{"x":1}'), tool(1, "b", "g", "{}")], id="whole calls"),
        pytest.param(
            [tool(0, "a", "f", '{"x"'), tool(0, "a", "f", ":1}"), tool(1, "b", "g", "{"), tool(1, "b", "g", "}")],
            id="all repeated",
        ),
        pytest.param(
            [tool(0, "a", "f", '{"x"'), tool(0, "a", arguments=":1}"), tool(1, "b", "g", "{}")], id="id repeated"
        ),
        pytest.param([tool(0, "a", "f", '{"x"'), tool(0, "", "f", ":1}"), tool(1, "b", "g", "{}")], id="name repeated"),
        pytest.param(
            [tool(0, "a", "f", '{"x"'), tool(0, "zz", "", ":1}"), tool(1, "b", "g", "{}")], id="an id for every piece"
        ),
        pytest.param([tool(None, "a", "f", '{"x":1}'), tool(None, "b", "g", "{}")], id="no index"),
        pytest.param(
            [tool(None, "a", "f", '{"x"'), tool(None, arguments=":1}"), tool(None, "b", "g", "{}")],
            id="no index, pieces",
        ),
        pytest.param([tool(0, "a", "f", '{"x"'), tool(0, arguments=":1}"), tool(0, "b", "g", "{}")], id="all index 0"),
        pytest.param(
            [tool(0, "a", "f", '{"x"'), tool(0, "b", "g", "{}"), tool(0, "a", arguments=":1}")], id="index 0, mixed"
        ),
        pytest.param(
            [tool(0, "a", "f", '{"x"'), tool(1, "b", "g", "{"), tool(0, arguments=":1}"), tool(1, arguments="}")],
            id="mixed",
        ),
        pytest.param([tool(1, "a", "f", '{"x":1}'), tool(2, "b", "g", "{}")], id="from 1"),
        pytest.param([tool(5, "a", "f", '{"x":1}'), tool(3, "b", "g", "{}")], id="any numbers"),
        pytest.param([tool(0, "a", "f", {"x": 1}), tool(1, "b", "g", {})], id="arguments as objects"),
        pytest.param([tool(0, "a", "f", '{"x":1}'), tool(1, "b", "g")], id="no arguments"),
        pytest.param([tool(0, "a", "f", '{"x":1}'), tool(1, "b", "g", ""), tool(1)], id="empty arguments"),
    ],
)
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_m5_tool_calls_however_they_come(pieces: list[dict[str, Any]], reason: str) -> None:
    whole = fold(read(*pieces, delta(reason)))
    assert whole.tool_calls == F_G
    assert whole.reason == "tool_calls"


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        ([tool(0, None, "f", "{}"), tool(0, None, "g", "{}")], [("new_0", "f"), ("new_1", "g")]),
        ([tool(None, None, "f", "{}"), tool(None, None, "f", "{}")], [("new_0", "f"), ("new_1", "f")]),
        ([tool(0, "a", "f", "{}"), tool(1, "a", "f", "{}")], [("a", "f"), ("new_0", "f")]),
        ([tool(0, "", "f", "{"), tool(0, "", "", "}")], [("new_0", "f")]),
    ],
)
def test_tool_calls_without_an_id_of_their_own_get_one(pieces: list[Any], calls: list[tuple[str, str]]) -> None:
    whole = fold(read(*pieces, delta("tool_calls")))
    assert [(made.id, made.name) for made in whole.tool_calls] == calls
    assert [made.arguments for made in whole.tool_calls] == ["{}"] * len(calls)


@pytest.mark.parametrize("piece", [tool(0, "a", None, "{}"), tool(0, None, None, "{}"), delta(tool_calls=[{}])])
def test_a_tool_call_without_a_name_is_a_failure(piece: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="without a name"):
        read(piece, delta("tool_calls"))


def test_a_whole_answer_with_equal_calls() -> None:
    made = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    empty = {"type": "function", "function": {"name": "f", "arguments": ""}}
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [made, made, empty]}
    body = {"model": "up", "choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}
    whole = fold(call.read_chat(json.dumps(body).encode(), ids()))
    assert whole.tool_calls == (
        ToolCall("a", "f", '{"x":1}'),
        ToolCall("new_0", "f", '{"x":1}'),
        ToolCall("new_1", "f", "{}"),
    )
    assert (whole.reasoning, whole.reason, whole.usage) == ("hm", "tool_calls", Usage(3, 2))


def test_a_whole_answer_that_is_an_error() -> None:
    with pytest.raises(BackendError, match="boom"):
        call.read_chat(b'{"error":{"message":"boom"}}', ids())
    with pytest.raises(BackendError, match="format"):
        call.read_completion(b"<html>")


# Errors before the stream


@pytest.mark.parametrize(
    ("status", "body", "kind", "told", "words"),
    [
        (400, b'{"error":{"message":"bad","code":"invalid_type"}}', InvalidRequest, (400, "invalid_type"), "bad"),
        (400, b'{"error":"bad"}', InvalidRequest, (400, "invalid_value"), "bad"),
        (422, b'{"detail":"bad"}', InvalidRequest, (422, "invalid_value"), "bad"),
        (400, b'{"object":"error","message":"bad"}', InvalidRequest, (400, "invalid_value"), "bad"),
        (404, b'{"error":{"message":"model \'x\' not found"}}', ModelNotFound, (404, "model_not_found"), "model 'x'"),
        (404, b"<html>nginx</html>", BackendError, (502, "backend_error"), "status 404"),
        (429, b'{"error":{"message":"pay","type":"insufficient_quota"}}', Busy, (429, "insufficient_quota"), "pay"),
        (
            503,
            b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}',
            Busy,
            (503, "backend_unavailable"),
            "Loading",
        ),
        (500, b"", BackendError, (500, "backend_error"), "status 500"),
        (500, b"[]", BackendError, (500, "backend_error"), "status 500"),
        (500, b'{"error":{"message":5}}', BackendError, (500, "backend_error"), "status 500"),
        (
            401,
            b'{"error":{"message":"Incorrect API key provided: sk-1"}}',
            BackendError,
            (502, "backend_credentials"),
            "credentials",
        ),
    ],
)
def test_errors_before_the_stream(
    status: int, body: bytes, kind: type[GatewayError], told: tuple[int, str], words: str
) -> None:
    error = call.read_error(status, body, "3")
    assert (type(error), error.status, error.code) == (kind, *told)
    assert words in error.message
    assert error.retry_after == (3 if kind is Busy else None)


TOO_LONG = {
    "code": 400,
    "type": "exceed_context_size_error",
    "message": "request exceeds",
    "n_prompt_tokens": 90,
    "n_ctx": 64,
}


def test_an_overlong_prompt_is_said_in_the_words_that_agents_search_for() -> None:
    error = call.read_error(400, json.dumps({"error": TOO_LONG}).encode(), None)
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert error.message == "This model's maximum context length is 64 tokens. However, you requested 90 tokens."
    with pytest.raises(InvalidRequest, match="maximum context length is 64 tokens"):
        read({"error": {**TOO_LONG, "code": None}})
    said = {
        "message": "This model's maximum context length is 5 tokens.",
        "code": "context_length_exceeded",
        "n_ctx": 5,
    }
    assert call.read_error(400, json.dumps({"error": said}).encode(), None).message == said["message"]
    bare = {"message": "too long", "code": "context_length_exceeded"}
    assert call.read_error(400, json.dumps({"error": bare}).encode(), None).message == "too long"


# Requests


def test_a_stream_always_asks_for_usage() -> None:
    request = Generate(model="m", messages=(Message("user", (Text("x"),)),))
    assert json.loads(call.write_chat(request, "up"))["stream_options"] == {"include_usage": True}
    ask = serve.read_chat(b'{"messages":[{"role":"user"}],"stream":true,"stream_options":{"include_usage":false}}')
    assert json.loads(call.write_chat(ask.requests[0], "up"))["stream_options"] == {"include_usage": True}
    ask = serve.read_chat(b'{"messages":[{"role":"user"}],"stream":false}')
    assert "stream_options" not in json.loads(call.write_chat(ask.requests[0], "up"))


def test_several_choices_are_several_requests_upstream() -> None:
    ask = serve.read_chat(b'{"messages":[{"role":"user"}],"n":2}')
    assert all("n" not in json.loads(call.write_chat(request, "up")) for request in ask.requests)


def test_the_limit_is_spelled_as_the_server_wants_it() -> None:
    request = Generate(model="m", sampling=Sampling(max_tokens=5))
    assert json.loads(call.write_chat(request, "up"))["max_tokens"] == 5
    body = json.loads(call.write_chat(request, "up", limit="max_completion_tokens"))
    assert (body["max_completion_tokens"], body.get("max_tokens")) == (5, None)


def test_extras_travel_as_they_came_and_only_to_their_own_dialect() -> None:
    body = b'{"messages":[{"role":"user"}],"chat_template_kwargs":{"enable_thinking":false},"top_a":0.10,"reasoning":{"effort":"low"}}'
    (request,) = serve.read_chat(body).requests
    written = call.write_chat(request, "up")
    assert b'"chat_template_kwargs":{"enable_thinking":false}' in written
    assert b'"top_a":0.10' in written
    assert json.loads(written)["reasoning"] == {"effort": "low"}
    assert "reasoning_effort" not in json.loads(written)
    stranger = Generate(model="m", think="on", origin=Origin("ollama", b'{"messages":[],"top_a":1}'))
    assert "top_a" not in json.loads(call.write_chat(stranger, "up"))
    assert json.loads(call.write_chat(stranger, "up"))["reasoning_effort"] == "medium"


@pytest.mark.parametrize("field", ["api_base", "api_key", "chat_template", "extra_headers", "base_url"])
def test_no_field_of_a_client_steers_the_backend(field: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user"}], "prompt": "x", "input": "x", field: "x"}).encode()
    for write, request in (
        (call.write_chat, serve.read_chat(body).requests[0]),
        (call.write_completion, serve.read_completion(body).requests[0]),
        (call.write_embeddings, serve.read_embeddings(body).request),
    ):
        with pytest.raises(Unsupported, match=field):
            write(request, "up")  # type: ignore[operator]  # three signatures in one loop


def test_messages_that_other_dialects_make() -> None:
    results = Message("tool", (ToolResult("a", "f", "1"), ToolResult("b", "g", "2"), Text("no")))
    calls = Message("assistant", (ToolCall("a", "f", "{}"),))
    body = json.loads(call.write_chat(Generate(model="m", messages=(calls, results)), "up"))
    assert [(message["role"], message.get("tool_call_id")) for message in body["messages"]] == [
        ("assistant", None),
        ("tool", "a"),
        ("tool", "b"),
    ]
    # Never null beside tool calls: chat templates crash on it.
    assert body["messages"][0]["content"] == ""
    with pytest.raises(InvalidRequest):
        call.write_chat(Generate(model="m", messages=(Message("user", (ToolResult("a", "f", "1"),)),)), "up")


def test_a_completion_without_a_limit_says_so() -> None:
    body = json.loads(call.write_completion(Generate(model="m", prompt=Prompt(text="x"), stream=False), "up"))
    assert body == {"model": "up", "stream": False, "prompt": "x", "max_tokens": None}
    assert "prompt" not in json.loads(call.write_completion(Generate(model="m"), "up"))


# Embeddings and models


def test_embeddings() -> None:
    body = json.loads(call.write_embeddings(Embed(model="m", inputs=("a", (1, 2)), dimensions=4), "up"))
    assert body == {"model": "up", "input": ["a", [1, 2]], "encoding_format": "float", "dimensions": 4}
    rows = [{"index": 1, "embedding": "AACAPwAAAEA="}, {"index": 0, "embedding": [0.5, 1]}]
    reply = call.read_embeddings(json.dumps({"data": rows, "model": "up", "usage": {"prompt_tokens": 3}}).encode())
    assert (reply.model, reply.vectors, reply.prompt_tokens) == ("up", ([0.5, 1.0], [1.0, 2.0]), 3)
    assert call.read_embeddings(b'{"data":[{"embedding":[1]}]}').prompt_tokens is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"data":[]}', "no embeddings"),
        (b"{}", "no embeddings"),
        (b'{"error":{"message":"boom"}}', "boom"),
        (b'{"data":[{"embedding":"%%"}]}', "format"),
        (b'{"data":[{"embedding":"AAA="}]}', "format"),
        (b'{"data":[{"embedding":[[1]]}]}', "format"),
        (b"<html>", "format"),
    ],
)
def test_broken_embeddings(body: bytes, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        call.read_embeddings(body)


def test_catalogs_of_various_servers() -> None:
    rows = [
        {"id": "plain", "object": "model"},
        {"id": "llama", "created": 1.5, "owned_by": "llamacpp", "meta": {"n_ctx_train": 8, "n_params": 9, "size": 10}},
        {"id": "vllm", "max_model_len": 11, "architecture": {"input_modalities": ["text", "image"]}},
        {"id": "own", "capabilities": ["chat", "new", 5], "architecture": "llama"},
        {"id": "text only", "capabilities": {"chat": True}, "architecture": {"input_modalities": None}},
    ]
    plain, llama, vllm, own, text_only = call.read_models(json.dumps({"data": rows}).encode())
    assert (plain.id, plain.modified, plain.owner, plain.capabilities) == ("plain", 0, "", frozenset())
    assert (llama.modified, llama.context_length, llama.parameter_count, llama.size) == (1_000_000_000, 8, 9, 10)
    assert (vllm.context_length, vllm.capabilities) == (11, {Capability.VISION})
    assert own.capabilities == {Capability.CHAT}
    assert text_only.capabilities == frozenset()


def test_m5_the_client_half_reads_our_own_catalog() -> None:
    models = call.read_models(
        json.dumps({"data": [{"id": "m", "meta": {"size": 3}, "capabilities": ["chat", "vision"]}]}).encode()
    )
    assert call.read_models(serve.models_reply(models))[0].capabilities == models[0].capabilities


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"{}", "without 'data'"), (b"[]", "format"), (b'{"data":[{}]}', "format"), (b'{"error":"boom"}', "boom")],
)
def test_broken_catalogs(body: bytes, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        call.read_models(body)
