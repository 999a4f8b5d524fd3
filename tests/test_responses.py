"""The words of ``/v1/responses``: items read, answers told, and the official SDK's own accumulator as the judge. M4, M5."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from adapters.responses import serve, stream
from adapters.responses.items import Conversation, kept_items
from adapters.responses.replay import frames_of, replay
from adapters.responses.seal import seal, text_arguments, text_input, unseal
from canonical.errors import BackendError, BackendUnavailable, InvalidRequest, NotFound
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta, Usage, fold
from canonical.messages import Image, Message, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import Generate, ToolChoice
from tests.telling import STAMP
from tests.test_halves import streams

TOOL = {"type": "function", "name": "f"}


def question(**fields: Any) -> serve.Question:
    return serve.read_create(json.dumps({"model": "m", "input": "x", **fields}).encode())


def asked(**fields: Any) -> Generate:
    return question(**fields).asked()


def answer(events: Iterable[Event], **fields: Any) -> tuple[bytes, serve.ResponseStream]:
    """Every frame, and the encoder that told them."""
    encoder = question(**fields).answer(STAMP, store=True)
    return b"".join([*(encoder.feed(event) for event in events), encoder.finish()]), encoder


def records(frames: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each frame bears its event's name twice."""
    found = []
    for frame in frames_of(frames):
        name, data = frame.removesuffix(b"\n\n").split(b"\n")
        record = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + record["type"].encode()
        found.append(record)
    assert [record["sequence_number"] for record in found] == list(range(len(found)))
    return found


def accumulated(frames: bytes) -> Response:
    """What the official SDK makes of a stream."""
    from openai._types import omit

    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    final = None
    for record in records(frames):
        event = construct_type(type_=ResponseStreamEvent, value=record)
        for told in state.handle_event(event):
            if told.type in {"response.completed", "response.incomplete"}:
                final = told.response
    assert final is not None
    return final


def read_back(response: dict[str, Any]) -> list[Any]:
    """The parts of the messages that the output means, where a client sends it back."""
    conversation = Conversation()
    conversation.read([msgspec.Raw(json.dumps(item).encode()) for item in response["output"]])
    return [part for message in conversation.messages() for part in message.parts]


# Streams.


@given(streams(), st.booleans(), st.booleans())
def test_m5_the_sdk_accumulates_what_the_events_say(events: list[Event], summary: bool, sealed: bool) -> None:
    fields: dict[str, Any] = {"include": ["reasoning.encrypted_content"]} if sealed else {}
    if summary:
        fields["reasoning"] = {"summary": "auto"}
    frames, encoder = answer(events, **fields)
    final, told = accumulated(frames), fold(events)
    assert final.output_text == told.text
    thoughts = [item for item in final.output if item.type == "reasoning"]
    shown = [[part.text for part in (item.summary if summary else item.content or [])] for item in thoughts]
    assert "".join(text for texts in shown for text in texts) == told.reasoning
    calls = [item for item in final.output if item.type == "function_call"]
    assert [(call.call_id, call.name, call.arguments) for call in calls] == [
        (call.id, call.name, call.arguments) for call in told.tool_calls
    ]
    assert final.status == ("incomplete" if told.reason in {"length", "content_filter"} else "completed")
    if told.usage is not None:
        assert final.usage is not None
        assert final.usage.input_tokens_details.cached_tokens == told.usage.cached
        assert final.usage.output_tokens_details.reasoning_tokens == told.usage.reasoning
        assert final.usage.total_tokens == told.usage.prompt + told.usage.completion
    assert json.loads(encoder.body()) == records(frames)[-1]["response"]


@given(streams())
def test_m5_items_are_announced_told_and_ended_once(events: list[Event]) -> None:
    open_items: dict[str, str] = {}
    done: list[dict[str, Any]] = []
    frames, _ = answer(events)
    for record in records(frames):
        match record["type"]:
            case "response.output_item.added":
                assert record["output_index"] == len(open_items) + len(done)
                open_items[record["item"]["id"]] = ""
            case "response.output_item.done":
                item = record["item"]
                text = open_items.pop(item["id"])
                parts = item.get("content", [])
                assert text == item.get("arguments", "".join(part["text"] for part in parts))
                done.append(item)
            case name if name.endswith(".delta"):
                open_items[record["item_id"]] += record["delta"]
    assert not open_items
    ended = {item["id"]: item for item in records(frames)[-1]["response"]["output"]}
    assert {item["id"]: item for item in done} == ended


@given(streams())
@example([Started("m"), ToolCallDelta(0, "c", "f", "\x0c"), Finished("tool_calls")])
def test_m5_an_answer_sent_back_means_what_was_said(events: list[Event]) -> None:
    _, encoder = answer(events, include=["reasoning.encrypted_content"])
    parts, told = read_back(json.loads(encoder.body())), fold(events)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == told.text
    blanks = " \t\r\n"  # JSON's: others are broken arguments, which stay as they are
    assert [part for part in parts if isinstance(part, ToolCall)] == [
        ToolCall(call.id, call.name, call.arguments if call.arguments.strip(blanks) not in {"", "null"} else "{}")
        for call in told.tool_calls
    ]
    if told.text or told.tool_calls:
        assert "".join(part.text for part in parts if isinstance(part, Reasoning)) == told.reasoning


@given(streams(), st.booleans())
def test_m5_a_replayed_response_adds_up_to_the_stored_one(events: list[Event], summary: bool) -> None:
    fields: dict[str, Any] = {"reasoning": {"summary": "auto"}} if summary else {}
    _, encoder = answer(events, top_logprobs=2, **fields)
    frames = b"".join(replay(encoder.body()))
    assert records(frames)[-1]["response"] == json.loads(encoder.body())
    assert (
        accumulated(frames).to_dict()["output"]
        == accumulated(answer(events, top_logprobs=2, **fields)[0]).to_dict()["output"]
    )


def test_m5_a_replay_is_the_stream_where_each_part_was_one_piece() -> None:
    events = [Started("m"), ReasoningDelta("hm"), TextDelta("a"), ToolCallDelta(0, "c", "f", "{}"), Finished("stop")]
    frames, encoder = answer(events)
    assert [(r["type"], r.get("delta")) for r in records(b"".join(replay(encoder.body())))] == [
        (r["type"], r.get("delta")) for r in records(frames)
    ]


def test_m5_signed_thoughts_come_back_with_their_proof() -> None:
    events = [
        Started("m"),
        ReasoningDelta("a"),
        ReasoningDelta("b", "proof 1"),
        ReasoningDelta("", "proof 2"),
        ToolCallDelta(0, "c", "f", "{}"),
        Finished("tool_calls"),
    ]
    frames, encoder = answer(events)
    output = json.loads(encoder.body())["output"]
    assert [item["type"] for item in output] == ["reasoning", "reasoning", "function_call"]
    for item in output[:2]:
        item["content"] = None  # as Codex sends it
    assert read_back({"output": output}) == [
        Reasoning("ab", "proof 1"),
        Reasoning("", "proof 2"),
        ToolCall("c", "f", "{}"),
    ]
    accumulated(frames)


@given(st.text(), st.none() | st.text(), st.text())
def test_m5_seals_open(text: str, signature: str | None, other: str) -> None:
    thought = Reasoning(text, signature)
    assert unseal(seal(thought)) == thought
    assert unseal(other) is None
    assert unseal("dragoman1." + other) in {None, unseal("dragoman1." + other)}
    assert text_input(text_arguments(text)) == text


def test_m5_a_custom_tool_is_told_as_one() -> None:
    tools = [{"type": "custom", "name": "patch"}, TOOL]
    events = [
        Started("m"),
        ToolCallDelta(0, "c1", "patch", '{"inp'),
        ToolCallDelta(1, "c2", "f", "{}"),
        ToolCallDelta(0, arguments='ut":"a\\nb"}'),
        Finished("tool_calls"),
    ]
    frames, encoder = answer(events, tools=tools)
    output = json.loads(encoder.body())["output"]
    assert [(item["type"], item.get("input"), item.get("arguments")) for item in output] == [
        ("custom_tool_call", "a\nb", None),
        ("function_call", None, "{}"),
    ]
    told = [(r["type"], r.get("delta"), r.get("input")) for r in records(frames) if "custom" in r["type"]]
    assert told == [
        ("response.custom_tool_call_input.delta", "a\nb", None),
        ("response.custom_tool_call_input.done", None, "a\nb"),
    ]
    assert read_back({"output": output})[0] == ToolCall("c1", "patch", '{"input":"a\\nb"}')
    assert text_input("not what was asked for") == "not what was asked for"
    accumulated(frames)


@given(streams(), st.integers(0, 20))
def test_m5_a_failure_is_told_twice_and_ends_the_stream(events: list[Event], place: int) -> None:
    encoder = question().answer(STAMP, store=True)
    frames = b"".join(encoder.feed(event) for event in events[: min(place, len(events) - 1)])
    told = records(frames + encoder.fail(BackendUnavailable("the backend is gone", param="model")))
    assert told[0]["type"] == "response.created"
    assert (told[-2]["type"], told[-2]["code"], told[-2]["param"]) == ("error", "backend_unavailable", "model")
    last = told[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "backend_unavailable", "message": "the backend is gone"}
    assert {item["status"] for item in last["response"]["output"]} <= {"completed", "incomplete"}
    text = "".join(event.text for event in events[: min(place, len(events) - 1)] if isinstance(event, TextDelta))
    assert Response.construct(**last["response"]).output_text == text


def test_pieces_of_nothing_open_no_item() -> None:
    events = [Started("m"), TextDelta(""), ReasoningDelta(""), ToolCallDelta(0, "c", "f"), ToolCallDelta(0)]
    _, encoder = answer([*events, Finished("tool_calls")])
    assert [item["type"] for item in json.loads(encoder.body())["output"]] == ["function_call"]


def test_an_answer_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LIMIT", 10)
    encoder = question().answer(STAMP, store=True)
    with pytest.raises(BackendError, match="10 characters"):
        encoder.feed(TextDelta("x" * 11))
    encoder = question(tools=[{"type": "custom", "name": "f"}]).answer(STAMP, store=True)
    with pytest.raises(BackendError, match="10 characters"):
        encoder.feed(ToolCallDelta(0, "c", "f", "x" * 11))


def test_a_cancelled_answer_keeps_what_it_has() -> None:
    tools = [{"type": "custom", "name": "g"}]
    encoder = question(background=True, reasoning={"summary": "auto"}, tools=tools).answer(STAMP, store=True)
    assert [r["type"] for r in records(encoder.queue())] == ["response.created", "response.queued"]
    for event in (
        Started("m"),
        ToolCallDelta(0, "c", "f", '{"a'),
        ToolCallDelta(1, "d", "g", "raw"),
        ReasoningDelta("hm"),
    ):
        encoder.feed(event)
    assert json.loads(encoder.body())["output"] == []
    assert b"response.incomplete" in encoder.cancel()
    told = json.loads(encoder.body())
    assert (told["status"], told["background"], told["incomplete_details"]) == ("cancelled", True, None)
    assert [(item["status"], item.get("arguments"), item.get("input")) for item in told["output"]] == [
        ("incomplete", '{"a', None),
        ("incomplete", None, "raw"),
        ("incomplete", None, None),
    ]
    assert told["output"][2]["summary"] == [{"type": "summary_text", "text": "hm"}]


# What a response repeats.


def test_m4_a_response_repeats_what_was_asked() -> None:
    body = b"""{
      "model": "m", "input": "x", "instructions": "Be brief.", "max_output_tokens": 9, "metadata": {"a": "b"},
      "tools": [{"type": "function", "name": "f", "parameters": {"type": "object",\n "x": "\xe2\x80\xa8"}}, {"type": "web_search"}],
      "tool_choice": {"type": "function", "name": "f"}, "text": {"verbosity": "low"}, "parallel_tool_calls": false,
      "reasoning": {"effort": "low", "generate_summary": "auto"}, "temperature": 0.5, "top_p": 0.9, "top_logprobs": 2,
      "previous_response_id": "resp_0", "user": "u", "truncation": "auto"}"""
    encoder = serve.read_create(body).answer(STAMP, store=False)
    frames = b"".join(map(encoder.feed, [Started("other"), Finished("stop", Usage(1, 2))])) + encoder.finish()
    told = records(frames)[-1]["response"]
    sent = json.loads(body)
    for name in ("tools", "tool_choice", "metadata", "instructions", "max_output_tokens", "parallel_tool_calls"):
        assert told[name] == sent[name]
    for name in ("model", "temperature", "top_p", "top_logprobs", "previous_response_id", "user", "truncation"):
        assert told[name] == sent[name]
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert told["reasoning"] == {"effort": "low", "summary": "auto"}
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    assert json.loads(question(text={"format": form}).answer(STAMP, store=True).body())["text"] == {"format": form}
    assert told["store"] is False


# Requests.

_NAMES = st.sampled_from(
    [
        *("input", "type", "role", "content", "text", "format", "tools", "tool_choice", "name", "schema", "output"),
        *("call_id", "arguments", "summary", "encrypted_content", "image_url", "reasoning", "effort", "metadata"),
    ]
)


def test_m4_what_cannot_be_told_is_lost_by_name() -> None:
    request = asked(
        input=[
            {"role": "user", "content": "x", "phase": "commentary"},
            {"type": "computer_call", "id": "1"},
            {"type": "reasoning", "encrypted_content": "of another"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": {"a": 1}},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]},
        ],
        tools=[TOOL, {"type": "web_search"}, {"type": "custom", "name": "g", "format": {"type": "grammar"}}],
        tool_choice={"type": "web_search"},
        include=["web_search_call.results"],
        truncation="auto",
        reasoning={"effort": "gigantic", "summary": None},
        max_tool_calls=3,
        service_tier="auto",
    )
    assert request.origin.lost == (
        "include[web_search_call.results]",
        "tools[type=web_search]",
        "tools[].format",
        "tool_choice[type=web_search]",
        "input[type=computer_call]",
        "input[].encrypted_content",
        "input[].output[type=input_file]",
        "truncation",
        "reasoning.effort",
    )
    assert request.origin.unknown() == ["max_tool_calls", "input[].phase"]
    assert request.tool_choice is None
    assert request.messages[1].parts == (ToolCall("c", "f", '{"a":1}'),)
    assert request.messages[2].parts == (ToolResult("c", "f", ""),)


def test_m4_thoughts_without_an_answer_are_left_out() -> None:
    thoughts = {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    request = asked(input=[{"role": "user", "content": "x"}, thoughts, {"role": "user", "content": "y"}])
    assert [message.role for message in request.messages] == ["user", "user"]
    assert request.origin.lost == ("input[type=reasoning]",)
    # Two texts are two turns, and a thought belongs to the second.
    texts = [{"role": "assistant", "content": "a"}, thoughts, {"role": "assistant", "content": "b"}]
    assert asked(input=[{"role": "user", "content": "x"}, *texts]).messages[1:] == (
        Message("assistant", (Text("a"),)),
        Message("assistant", (Reasoning("hm"), Text("b"))),
    )


def test_m4_a_request_goes_on_from_items() -> None:
    history = [*kept_items("Hello", "1"), msgspec.Raw(b'{"type":"message","role":"assistant","content":"Hi."}')]
    request = question(instructions="Be brief.", previous_response_id="resp_1").asked(history)
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi."),
        ("user", "x"),
    ]
    assert request.origin.plain


def test_kept_items_have_types_and_ids() -> None:
    items: Sequence[Any] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "id": "own"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "odd"},
    ]
    kept = [
        json.loads(bytes(item)) for item in kept_items([msgspec.Raw(json.dumps(item).encode()) for item in items], "9")
    ]
    assert [(item["type"], item["id"]) for item in kept] == [
        ("message", "msg_9_i0"),
        ("message", "own"),
        ("function_call", "fc_9_i2"),
        ("odd", "item_9_i3"),
    ]
    assert kept[0]["content"] == [{"type": "input_text", "text": "a"}]
    assert kept[1]["content"] == [{"type": "output_text", "text": "b"}]
    assert kept_items(None, "9") == []
    assert serve.owner_of("fc_9_i2") == "resp_9"
    assert serve.owner_of("x") == serve.owner_of("__") == ""


@given(st.lists(st.sampled_from(["msg", "call", "output", "reasoning", "user"]), max_size=12), st.integers(0, 12))
def test_m5_a_conversation_split_anywhere_means_the_same(kinds: list[str], cut: int) -> None:
    spelled: dict[str, Any] = {
        "msg": {"role": "assistant", "content": "said"},
        "user": {"role": "user", "content": "asked"},
        "reasoning": {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        "call": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        "output": {"type": "function_call_output", "call_id": "c", "output": "y"},
    }
    items = [spelled[kind] for kind in kinds] + [spelled["user"]]
    raw = [msgspec.Raw(json.dumps(item).encode()) for item in items]
    whole = asked(input=items)
    split = question(input=items[cut:] or [spelled["user"]]).asked(raw[:cut] if items[cut:] else raw[:-1])
    assert split.messages == whole.messages


ERRORS: list[tuple[dict[str, Any], str, str]] = [
    ({"input": None}, "input", "missing required parameter"),
    ({"input": ""}, "input", "empty"),
    ({"input": []}, "input", "empty"),
    ({"input": [{"type": "odd"}]}, "input", "nothing"),
    ({"input": [7]}, "input[0]", "object"),
    ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role", "wizard"),
    ({"input": [{"content": "x"}]}, "input[0].role", "missing"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text", "missing"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": 7}]}]},
        "input[0].content[0].text",
        "str",
    ),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].type", "input_file"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0]",
        "files",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///etc/passwd"}]}]},
        "input[0].content[0].image_url",
        "http",
    ),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].input_audio", "missing"),
    (
        {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "data:"}]}]},
        "input[0].content[0]",
        "only user",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "missing"),
    ({"input": [{"type": "function_call", "name": "", "call_id": "c"}]}, "input[0].name", "missing"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "missing"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing"),
    ({"tools": [{"type": "function", "name": "f", "parameters": 7}]}, "tools[0].parameters", "object"),
    ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ({"tool_choice": "odd"}, "tool_choice", "odd"),
    ({"tool_choice": {"type": "function", "name": "g"}, "tools": [TOOL]}, "tool_choice", "g"),
    ({"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}}, "tool_choice.mode", "no tools"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "xml"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "missing"),
    ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
    ({"top_logprobs": 21}, "top_logprobs", "<= 20"),
    ({"temperature": 3}, "temperature", "<= 2"),
    ({"stream": "yes"}, "stream", "bool"),
    ({"background": True, "store": False}, "background", "stored"),
    ({"metadata": 7}, "metadata", "object"),
]


@pytest.mark.parametrize(("fields", "param", "words"), ERRORS, ids=[f"{n}-{row[1]}" for n, row in enumerate(ERRORS)])
def test_what_is_wrong_is_said(fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=r".") as caught:
        asked(**fields)
    assert caught.value.param == param
    assert words in caught.value.message


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_NAMES, _json, max_size=5))
def test_no_body_is_a_defect_of_ours(fields: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequest):
        question = serve.read_create(json.dumps({"input": "x", **fields}).encode())
        question.asked()
        serve.response_items(question.kept("1"), question.answer(STAMP, store=True).body())


def test_references_are_resolved_or_refused() -> None:
    items = question(input=[{"type": "item_reference", "id": "msg_1_0"}, {"role": "user", "content": "x"}]).items
    assert serve.referred(items) == ["msg_1_0"]
    found = serve.resolved(items, {"msg_1_0": items[1]})
    assert found == [items[1], items[1]]
    with pytest.raises(NotFound, match="msg_1_0"):
        serve.resolved(items, {})


def test_choices_and_images() -> None:
    tools = [TOOL, {"type": "custom", "name": "g"}]
    assert asked(tools=tools, tool_choice={"type": "custom", "name": "g"}).tool_choice == ToolChoice("named", "g")
    assert asked(tools=tools, tool_choice="none").tool_choice == ToolChoice("none")
    image = {"type": "input_image", "image_url": "https://example.org/x.png", "detail": "high"}
    (message,) = asked(input=[{"role": "user", "content": [image]}]).messages
    assert message.parts == (Image("https://example.org/x.png", "high"),)


def test_m3_pictures_that_tools_give_follow_their_results_as_the_users() -> None:
    link = "https://example.org/x.png"
    shown = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": link}]
    calls = [{"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"} for id in "ab"]
    outputs = [{"type": "function_call_output", "call_id": id, "output": shown} for id in "ab"]
    request = asked(input=[*calls, *outputs, {"role": "user", "content": "well?"}])
    pictures = (Image(link), Image(link))
    assert [message.role for message in request.messages] == ["assistant", "tool", "tool", "user"]
    assert request.messages[1].parts == (ToolResult("a", "f", "see"),)
    assert request.messages[3].parts == (*pictures, Text("well?"))
    assert request.origin.lost == ()
    # Without a word of the user's, at the end and before the model's next turn.
    assert asked(input=[*calls, *outputs]).messages[3:] == (Message("user", pictures),)
    later = asked(input=[*calls, *outputs, {"role": "assistant", "content": "red"}, {"role": "user", "content": "ah"}])
    assert [message.role for message in later.messages[2:]] == ["tool", "user", "assistant", "user"]


def test_a_page_of_items() -> None:
    items = kept_items([msgspec.Raw(b'{"role":"user","content":"x"}')] * 5, "1")

    def page(**fields: str) -> tuple[list[str], bool]:
        told = json.loads(serve.page_reply(items, **{"limit": "", "order": "", "after": "", **fields}))
        ids = [item["id"] for item in told["data"]]
        assert (told["first_id"], told["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return [id.removeprefix("msg_1_") for id in ids], told["has_more"]

    assert page() == (["i4", "i3", "i2", "i1", "i0"], False)
    assert page(order="asc", limit="2") == (["i0", "i1"], True)
    assert page(order="asc", limit="2", after="msg_1_i3") == (["i4"], False)
    assert page(after="msg_1_i0") == ([], False)
    for wrong in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"order": "up"}, {"after": "no"}):
        with pytest.raises(InvalidRequest):
            page(**wrong)
