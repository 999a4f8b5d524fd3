"""Anthropic's requests, errors and catalogs, beyond what the golden requests and the stories tell."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from adapters.anthropic import call, serve
from adapters.anthropic.turns import UNSIGNED
from canonical.budgets import BUDGETS
from canonical.errors import (
    BackendError,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
    NotImplementedHere,
    TooLarge,
    Unauthorized,
    Unsupported,
)
from canonical.events import Finished, ReasoningDelta, Started, TextDelta, fold
from canonical.media import Blob
from canonical.messages import Audio, Message, Reasoning, Text, ToolCall, ToolResult
from canonical.models import ModelInfo
from canonical.requests import Generate, Output, Prompt, Sampling, Think
from tests.telling import STAMP

HELLO = {"role": "user", "content": "Hello"}
PNG = "iVBORw0KGgo="
_TOOL = {"name": "f", "input_schema": {"type": "object"}}


def body(*turns: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 9, "messages": list(turns) or [HELLO], **more}).encode()


def read(*turns: Any, **more: Any) -> Generate:
    (request,) = serve.read_messages(body(*turns, **more)).requests
    return request


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def parts(*blocks: Any) -> tuple[Any, ...]:
    return read(user(*blocks)).messages[-1].parts


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "missing request body"),
    "no JSON": (b"{", "not valid JSON"),
    "a name twice": (b'{"model":"a","model":"b"}', "stands twice"),
    "no messages": (b'{"model":"m","max_tokens":1}', "messages: Field required"),
    "no message": (b'{"model":"m","max_tokens":1,"messages":[]}', "at least one message is required"),
    "limit 0": (body(max_tokens=0), "max_tokens: Expected `int` >= 1"),
    "a role": (body({"role": "tool", "content": "x"}), "messages.0.role: unknown role 'tool'"),
    "no content": (body({"role": "user"}), "messages.0.content: Field required"),
    "a block's type": (body(user({"text": "x"})), "messages.0.content.0.type: Field required"),
    "text without text": (body(user({"type": "text"})), "messages.0.content.0.text.text: Field required"),
    "too hot": (body(temperature=1.5), "temperature: Expected `float` <= 1"),
    "empty turns alone": (body({"role": "user", "content": ""}), "must not be empty"),
    "a call of a user": (body(user({"type": "tool_use", "id": "a", "name": "f", "input": {}})), "cannot hold"),
    "a picture of an assistant": (body(assistant({"type": "image", "source": {}})), "cannot hold a image block"),
    "a call without id": (body(HELLO, assistant({"type": "tool_use", "name": "f"})), "tool_use.id: Field required"),
    "a call without name": (body(HELLO, assistant({"type": "tool_use", "id": "f"})), "tool_use.name: Field required"),
    "input that is no object": (
        body(HELLO, assistant({"type": "tool_use", "id": "a", "name": "f", "input": "{}"})),
        "input: Input should be an object",
    ),
    "a result without its call": (body(user({"type": "tool_result"})), "tool_use_id: Field required"),
    "a picture without source": (body(user({"type": "image"})), "image.source: Field required"),
    "a picture from a file": (
        body(user({"type": "image", "source": {"type": "url", "url": "file:///etc/passwd"}})),
        "base64 data, or an http(s) URL",
    ),
    "a picture that is none": (
        body(user({"type": "image", "source": {"type": "base64", "data": "aGVsbG8="}})),
        "unknown image format",
    ),
    "a file of the vendor's": (
        body(user({"type": "image", "source": {"type": "file", "file_id": "x"}})),
        "type 'file' are not supported",
    ),
    "a PDF": (
        body(user({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}})),
        "documents of type 'application/pdf' are not supported",
    ),
    "a source that is a number": (body(user({"type": "image", "source": 7})), "Expected `object`, got `int`"),
    "a tool without name": (body(tools=[{"input_schema": {}}]), "tools.0.custom.name: Field required"),
    "a schema that is a text": (body(tools=[{"name": "f", "input_schema": "x"}]), "should be an object"),
    "any of no tools": (body(tool_choice={"type": "any"}), "there are none"),
    "a tool that is not there": (body(tools=[_TOOL], tool_choice={"type": "tool", "name": "g"}), "not among the tools"),
    "a dropped tool": (
        body(
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
            tool_choice={"type": "tool", "name": "web_search"},
        ),
        "not among the tools",
    ),
    "a choice": (body(tool_choice={"type": "maybe"}), "unknown type 'maybe'"),
    "a way to think": (body(thinking={"type": "hard"}), "thinking.type: unknown type 'hard'"),
    "a form": (body(output_config={"format": {"type": "xml"}}), "a json_schema"),
}


@pytest.mark.parametrize("case", WRONG)
def test_m4_a_wrong_request_is_refused_with_its_place(case: str) -> None:
    data, says = WRONG[case]
    with pytest.raises(InvalidRequest) as caught:
        serve.read_messages(data)
    assert says in caught.value.message
    told = json.loads(serve.error_body(caught.value))
    assert told == {"type": "error", "error": {"type": "invalid_request_error", "message": caught.value.message}}


def test_what_clients_send_beyond_the_format_is_ignored() -> None:
    request = read(
        HELLO,
        context_management={"edits": []},
        service_tier="auto",
        mcp_servers=[],
        tools=[{**_TOOL, "defer_loading": True, "eager_input_streaming": True, "cache_control": {"type": "ephemeral"}}],
    )
    assert [tool.name for tool in request.tools] == ["f"]


def test_the_vendors_own_blocks_and_tools_are_left_out_and_their_neighbours_stay() -> None:
    unknown = {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "error"}}
    request = read(
        HELLO,
        assistant(
            {"type": "server_tool_use", "id": "s", "name": "web", "input": {}}, unknown, {"type": "text", "text": "A"}
        ),
        tools=[{"type": "web_search_20250305", "name": "web_search"}, _TOOL],
    )
    assert request.messages[-1] == Message("assistant", (Text("A"),))
    assert [tool.name for tool in request.tools] == ["f"]


def test_documents_and_search_results_are_told_as_text() -> None:
    inline = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    blocks = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "B"}]}}
    plain = {"type": "document", "source": {"type": "content", "content": "P"}}
    search = {"type": "search_result", "source": "https://x", "title": "S", "content": [{"type": "text", "text": "R"}]}
    assert parts(inline, blocks, plain, search) == (Text("T\nD"), Text("B"), Text("P"), Text("S\nR"))


def test_turns_of_one_role_are_one_and_empty_ones_none() -> None:
    request = read(HELLO, {"role": "assistant", "content": []}, user({"type": "text", "text": "again"}))
    assert request.messages == (Message("user", (Text("Hello"), Text("again"))),)


def test_a_begun_answer_ends_in_no_blank() -> None:
    begun = read(HELLO, assistant({"type": "text", "text": "So \n"})).messages
    assert begun[-1] == Message("assistant", (Text("So"),))
    assert [message.role for message in read(HELLO, assistant({"type": "text", "text": " "})).messages] == ["user"]
    assert read(HELLO, assistant({"type": "text", "text": "So \n"}), HELLO).messages[1].text == "So \n"


def test_a_system_turn_keeps_its_place() -> None:
    request = read(HELLO, {"role": "system", "content": "Mind."}, HELLO, system="First.")
    assert [message.role for message in request.messages] == ["system", "user", "system", "user"]
    _, turns = call.write_turns(request.messages, unsigned=True)
    assert [(turn["role"], len(turn["content"])) for turn in turns] == [("user", 3)]


def test_results_without_content_or_with_a_failure() -> None:
    called = assistant({"type": "tool_use", "id": "a", "name": "f", "input": {}})
    empty = {"type": "tool_result", "tool_use_id": "a"}
    failed = {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "no"}], "is_error": True}
    results = [message.parts[0] for message in read(HELLO, called, user(empty, failed)).messages[2:]]
    assert results == [ToolResult("a", "f", ""), ToolResult("b", "", "no", error=True)]
    assert [result.told for result in results if isinstance(result, ToolResult)] == ["", "Error: no"]


@pytest.mark.parametrize(
    ("thinking", "config", "think"),
    [
        (None, None, None),
        ({"type": "disabled"}, None, "off"),
        ({"type": "enabled"}, None, "on"),
        ({"type": "enabled", "budget_tokens": 1024}, None, "low"),
        ({"type": "enabled", "budget_tokens": 10_000}, None, "medium"),
        ({"type": "enabled", "budget_tokens": 31_999}, None, "high"),
        ({"type": "enabled", "budget_tokens": 60_000}, None, "max"),
        ({"type": "adaptive"}, None, "on"),
        ({"type": "between_tools"}, {"effort": "low"}, "low"),
        ({"type": "adaptive"}, {"effort": "xhigh"}, "max"),
        (None, {"effort": "high"}, None),
    ],
)
def test_m4_thinking(thinking: Any, config: Any, think: Think | None) -> None:
    more = {name: value for name, value in (("thinking", thinking), ("output_config", config)) if value is not None}
    assert read(**more).think == think


def test_m5_what_means_nothing_is_lost_by_name() -> None:
    assert read(output_config={"effort": "gigantic"}).origin.lost == ("output_config.effort",)
    picture = {"type": "image", "source": {}}
    assert read(system=[{"type": "text", "text": "be brief"}, picture]).origin.lost == ("system[].image",)


def test_m5_a_conversation_begins_with_the_user() -> None:
    greeting = Message("assistant", (Text("Hello, I am Pip."),))
    for messages in ((greeting, Message("user", (Text("x"),))), (Message("system", (Text("be brief"),)),)):
        opening = write(ask(messages=messages))["messages"][0]
        assert (opening["role"], len(opening["content"])) == ("user", 1)


def test_m5_a_server_that_wants_signatures_gets_no_thought_without_one_though_turns_go_as_they_came() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    thoughts = [{"type": "thinking", "thinking": "hm", "signature": sign} for sign in ("", UNSIGNED, "c2ln")]
    turns = (HELLO, assistant(*thoughts), HELLO, assistant(thoughts[1]), user({"type": "text", "text": "y", **mark}))
    request = read(*turns)
    assert write(request)["messages"] == list(turns)
    assert write(request, unsigned=False)["messages"] == [HELLO, assistant(thoughts[2]), HELLO, turns[4]]


def test_m5_ids_of_other_vendors_are_written_as_this_one_takes_them() -> None:
    id = "functions.f:0"
    turns = (
        Message("user", (Text("x"),)),
        Message("assistant", (ToolCall(id, "f", "{}"),)),
        Message("tool", (ToolResult(id, "f", "y"),)),
    )
    (_, called, answered) = write(ask(messages=turns))["messages"]
    assert called["content"][0]["id"] == answered["content"][0]["tool_use_id"] == "functions-2e-f-3a-0"


@pytest.mark.parametrize("style", ["adaptive", "enabled"])
@pytest.mark.parametrize("think", ["off", "low", "medium", "high", "max"])
def test_m5_both_styles_of_asking_to_think_mean_the_same(style: call.Style, think: Think) -> None:
    request = Generate(model="m", messages=(Message("user", (Text("x"),)),), think=think)
    written = call.write_messages(request, "m", style=style)
    (again,) = serve.read_messages(written).requests
    assert again.think == think


def test_budgets_fall_and_each_means_its_level() -> None:
    least = [tokens for _, tokens, _ in BUDGETS]
    assert least == sorted(least, reverse=True)
    assert all(first < written for _, first, written in BUDGETS)


# The request as it goes out


def ask(**more: Any) -> Generate:
    return Generate(model="m", **{"messages": (Message("user", (Text("x"),)),), **more})


def write(request: Generate, **more: Any) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(call.write_messages(request, "m", **more))
    return written


def test_m5_what_was_said_in_this_dialect_goes_on_in_its_own_words() -> None:
    said = json.loads(
        body(
            user({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
            tools=[_TOOL, {"type": "web_search_20250305", "name": "web_search"}],
            thinking={"type": "enabled", "budget_tokens": 1234},
            metadata={"user_id": "u"},
            news={"of": "tomorrow"},
        )
    )
    (request,) = serve.read_messages(json.dumps(said).encode()).requests
    assert json.loads(call.write_messages(request, "other")) == {**said, "model": "other", "stream": False}
    counted = json.loads(call.write_count(request, "other"))
    assert counted == {key: said[key] for key in ("messages", "tools", "thinking", "news")} | {"model": "other"}


def test_a_field_that_would_steer_the_backend_is_refused() -> None:
    with pytest.raises(Unsupported, match="api_base"):
        write(read(api_base="http://evil"))
    with pytest.raises(Unsupported, match="api_base"):
        call.write_count(read(api_base="http://evil"), "m")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (ask(messages=(), prompt=Prompt(text="x")), "conversations"),
        (ask(top_logprobs=0), "no log probabilities"),
        (ask(messages=(Message("user", (Audio(Blob(b"RIFF", "audio/wav")),)),)), "no sounds"),
        (ask(messages=(Message("assistant", (ToolCall("a", "f", "{"),)),)), "not a JSON object"),
    ],
)
def test_m5_what_this_dialect_cannot_say_is_refused(request_: Generate, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        write(request_)
    if request_.top_logprobs is None:
        with pytest.raises(InvalidRequest, match=says):
            call.write_count(request_, "m")


def test_a_limit_is_always_sent_and_unknown_ways_of_drawing_never() -> None:
    body_ = write(ask(sampling=Sampling(seed=1, min_p=0.1, logit_bias={"1": 1.0}, temperature=0.5, stop=("E",))))
    assert body_ == {
        "model": "m",
        "max_tokens": call.MAX_TOKENS,
        "stream": True,
        "temperature": 0.5,
        "stop_sequences": ["E"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
    }
    assert write(ask(), max_tokens=7)["max_tokens"] == 7


def test_results_stand_first_in_one_turn_and_a_begun_answer_ends_in_no_blank() -> None:
    turns = (
        Message("user", (Text("x"),)),
        Message("assistant", (ToolCall("a", "f", ""), ToolCall("b", "g", "{}"))),
        Message("tool", (ToolResult("a", "f", "1"),)),
        Message("system", (Text("Mind."),)),
        Message("tool", (ToolResult("b", "g", "2", error=True),)),
        Message("assistant", (Text("So \n"),)),
    )
    written = write(ask(messages=turns))["messages"]
    assert [block["type"] for block in written[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert [block.get("is_error") for block in written[2]["content"]] == [None, True, None]
    assert written[3]["content"] == [{"type": "text", "text": "So"}]


def test_thoughts_that_nobody_signed_stay_at_home_where_the_server_wants_signatures() -> None:
    thoughts = (Reasoning("mine"), Reasoning("theirs", "c2ln"), Text("y"))
    turns = (Message("user", (Text("x"),)), Message("assistant", thoughts), Message("user", (Text("z"),)))
    assert len(write(ask(messages=turns))["messages"][1]["content"]) == 3
    kept = write(ask(messages=turns), unsigned=False)["messages"][1]["content"]
    assert [block.get("signature") for block in kept] == ["c2ln", None]


def test_any_json_is_asked_for_as_a_schema() -> None:
    form = write(ask(output=Output("json")))["output_config"]["format"]
    assert form == {"type": "json_schema", "schema": {"type": "object"}}


def test_m4_without_a_limit_there_is_none() -> None:
    # The vendor demands one; other local servers do not.
    for said in ({}, {"max_tokens": None}):
        ask = serve.read_messages(
            json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **said}).encode()
        )
        assert ask.requests[0].sampling.max_tokens is None


def test_m4_thoughts_that_nobody_signed_have_a_signature_that_reads_as_none() -> None:
    answer = fold([Started("m"), ReasoningDelta("hm"), TextDelta("x"), Finished("stop")])
    (thought, _) = json.loads(serve.read_messages(body(HELLO)).whole([answer], STAMP))["content"]
    assert (thought["type"], bool(thought["signature"])) == ("thinking", True)
    turn = {"role": "assistant", "content": [thought, {"type": "text", "text": "x"}]}
    (_, said) = serve.read_messages(body(HELLO, turn, HELLO)).requests[0].messages[:2]
    assert said.parts[0] == Reasoning("hm", None)


# Errors


def test_m4_an_unknown_model_is_named_as_the_vendor_does() -> None:
    told = json.loads(serve.error_body(ModelNotFound("model 'x' not found")))
    assert told["error"]["message"] == "model: x"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("x"), "not_found_error"),
        (Unauthorized("x"), "authentication_error"),
        (TooLarge("x"), "request_too_large"),
        (Busy("x"), "overloaded_error"),
        (Busy("x", status=429), "rate_limit_error"),
        (NotImplementedHere("x"), "api_error"),
        (BackendError("x"), "api_error"),
        (GatewayError("x"), "api_error"),
    ],
)
def test_m4_errors_bear_the_vendors_types(error: GatewayError, kind: str) -> None:
    assert serve.error_status(error) == error.status
    assert json.loads(serve.error_body(error)) == {"type": "error", "error": {"type": kind, "message": "x"}}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            "This model's maximum context length is 4096 tokens: request (5000 tokens) exceeds the available context size",
            "prompt is too long: 5000 tokens > 4096 maximum",
        ),
        ("no numbers", "prompt is too long: no numbers"),
        ("prompt is too long: 2 tokens > 1 maximum", "prompt is too long: 2 tokens > 1 maximum"),
    ],
)
def test_m4_a_prompt_too_long_is_said_in_the_words_that_agents_look_for(message: str, says: str) -> None:
    error = InvalidRequest(message, code="context_length_exceeded")
    assert json.loads(serve.error_body(error))["error"]["message"] == says


def test_a_backends_errors_are_read() -> None:
    def error(status: int, kind: str, message: str) -> GatewayError:
        told = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
        return call.read_error(status, told, "3")

    full = error(529, "overloaded_error", "Overloaded")
    assert (type(full), full.status, full.retry_after) == (Busy, 503, 3)
    long = error(400, "invalid_request_error", "prompt is too long: 2 tokens > 1 maximum")
    assert (long.status, long.code) == (400, "context_length_exceeded")
    unable = error(501, "api_error", "cannot count tokens")
    assert (type(unable), unable.message) == (NotImplementedHere, "cannot count tokens")
    missing = error(404, "not_found_error", "model: claude-x")
    assert type(missing) is ModelNotFound
    assert call.read_error(500, b"<html>", None).message == "the backend answered with status 500"
    assert call.read_error(500, b'{"error":7}', None).message == "the backend answered with status 500"


# Catalogs and counts


def test_the_catalog_goes_out_and_comes_back() -> None:
    models = [ModelInfo(id="a", modified=1_700_000_000_000_000_000, context_length=9), ModelInfo(id="b")]
    told = serve.models_reply(models)
    assert json.loads(told)["first_id"] == "a"
    assert json.loads(told)["last_id"] == "b"
    assert json.loads(told)["has_more"] is False
    assert call.read_models(told) == models
    assert json.loads(serve.models_reply([])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert json.loads(serve.model_reply(models[1]))["created_at"] == "1970-01-01T00:00:00Z"


def test_a_catalog_in_openais_shape_is_read_too() -> None:
    (model,) = call.read_models(b'{"object":"list","data":[{"id":"a","object":"model","created":5}]}')
    assert (model.id, model.modified) == ("a", 5_000_000_000)
    (odd,) = call.read_models(b'{"data":[{"id":"a","created_at":"yesterday"}]}')
    assert odd.modified == 0


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"data":7}', b'{"error":{"message":"x"}}', b'{"data":[{"id":"\xff"}]}']
)
def test_a_broken_catalog_or_count_is_a_backends_error(data: bytes) -> None:
    for reader in (call.read_models, call.read_count):
        with pytest.raises(BackendError):
            reader(data)


def test_a_count_is_asked_for_without_a_limit_and_answered_by_a_number() -> None:
    asked = serve.read_count(b'{"model":"m","messages":[{"role":"user","content":"x"}],"thinking":{"type":"adaptive"}}')
    assert asked.request.think == "on"
    assert msgspec.json.decode(asked.whole(12)) == {"input_tokens": 12}
    assert call.read_count(asked.whole(12)) == 12
