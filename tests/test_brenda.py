"""Brenda's dialect, pure: a chat read off the wire, plain text in SSE, a load's events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.brenda.loads import LoadStream
from adapters.brenda.serve import Chat, read_chat
from adapters.brenda.stream import DONE, TextStream
from adapters.dialect import Stamp
from canonical.errors import BackendError, GatewayError, InvalidRequest, Unsupported
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta, fold
from canonical.messages import Text
from canonical.progress import Progress
from tests.eventsource import Heard, answer, heard

STAMP = Stamp("brenda", lambda: 1_700_000_000_000_000_000)
TURN = {"role": "user", "content": "Bonjour"}


def chat(*, default: str = "", **fields: Any) -> Chat:
    return read_chat(json.dumps({"messages": [TURN], **fields}).encode(), system=default)


def said(one: Chat) -> list[tuple[str, str]]:
    """The messages that a model gets: roles and texts."""
    (request, *_) = one.ask("pip").requests
    return [
        (message.role, "".join(part.text for part in message.parts if isinstance(part, Text)))
        for message in request.messages
    ]


# The request


def test_b4_ai_is_the_assistant() -> None:
    turns = [TURN, {"role": "ai", "content": "Salut"}, {"role": "assistant", "content": "!"}, TURN]
    assert said(chat(messages=turns)) == [
        ("user", "Bonjour"), ("assistant", "Salut"), ("assistant", "!"), ("user", "Bonjour"),
    ]  # fmt: skip


def test_b4_a_system_text_stands_for_all_instructions() -> None:
    turns = [
        {"role": "system", "content": "old"},
        {"role": "developer", "content": "older"},
        TURN,
        {"role": "system", "content": "late"},
    ]
    assert [role for role, _ in said(chat(messages=turns))] == ["system", "system", "user", "system"]
    new = chat(default="default", messages=turns, system="new")
    assert said(new) == [("system", "new"), ("user", "Bonjour")]
    assert said(chat(default="default", messages=turns, system="")) == [("user", "Bonjour")]


def test_b4_the_default_is_for_chats_without_instructions() -> None:
    assert said(chat(default="default")) == [("system", "default"), ("user", "Bonjour")]
    assert said(chat(default="default", system=None)) == [("system", "default"), ("user", "Bonjour")]
    own = [{"role": "system", "content": "own"}, TURN]
    assert said(chat(default="default", messages=own)) == [("system", "own"), ("user", "Bonjour")]
    assert said(chat()) == [("user", "Bonjour")]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"messages":[]}', "messages"),
        (b'{"messages":[],"system":"x"}', "messages"),
        (b'{"messages":[{"role":"system","content":"x"}],"system":""}', "messages"),
        (b'{"messages":[{"role":"AI","content":"x"}]}', "messages[0].role"),
        (b'{"messages":[{"role":"user","content":"x"}],"system":[]}', "system"),
        (b'{"messages":[{"role":"user","content":5}]}', "messages[0].content"),
        (b"{}", "messages"),
    ],
)
def test_what_is_no_chat_is_refused_with_its_place(body: bytes, where: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_chat(body)
    assert error.value.param == where


def test_the_other_fields_are_openais() -> None:
    request = chat(temperature=0.5, max_tokens=9, stop="x", tools=[{"type": "function", "function": {"name": "f"}}])
    (generate,) = request.ask("pip").requests
    assert (generate.sampling.temperature, generate.sampling.max_tokens, generate.sampling.stop) == (0.5, 9, ("x",))
    assert [tool.name for tool in generate.tools] == ["f"]
    assert generate.model == "pip"
    assert chat(model="own").model == "own"


def test_what_a_changed_chat_says_never_travels_as_it_came() -> None:
    """A server of OpenAI's dialect knows neither ``ai`` nor a ``system`` beside the messages."""
    changed = [{"system": "x"}, {"messages": [{"role": "ai", "content": "x"}, TURN]}, {"default": "x"}]
    for fields in changed:
        (request,) = chat(mirostat=2, **fields).ask("pip").requests
        assert set(request.origin.onward()) == {"mirostat"}
    (request,) = chat(mirostat=2).ask("pip").requests
    assert set(request.origin.onward()) == {"mirostat", "messages"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
    ],
)
def test_what_a_stream_of_text_has_no_place_for_is_refused_before_it_begins(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Unsupported) as error:
        chat(stream=True, **fields)
    assert error.value.param == param
    chat(stream=False, **fields)
    if "tools" in fields:
        chat(stream=True, tool_choice="none", **fields)


def test_what_a_stream_of_text_leaves_unsaid_is_reported() -> None:
    one = chat(stream=True, logprobs=True, top_logprobs=2, stream_options={"include_usage": True})
    (request,) = one.ask("pip").requests
    assert request.origin.lost == ("logprobs", "stream_options.include_usage")
    assert request.top_logprobs is None


# The whole answer


def whole(*events: Event) -> Any:
    return json.loads(chat().ask("pip").whole([fold(events)], STAMP))


def test_b5_the_answer_is_a_message_with_a_text() -> None:
    reply = whole(Started("inner"), ReasoningDelta("hm"), TextDelta("Sa"), TextDelta("lut"), Finished("stop"))
    (choice,) = reply["choices"]
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "Salut")
    assert reply["model"] == "pip"
    called = whole(Started(), ToolCallDelta(0, "call_1", "f", "{}"), Finished("tool_calls"))
    message = called["choices"][0]["message"]
    assert (message["content"], message["tool_calls"][0]["function"]["name"]) == ("", "f")


def test_an_answer_that_was_stopped_has_its_text_and_no_half_call() -> None:
    events = (Started(), TextDelta("Sa"), ToolCallDelta(0, "call_1", "f", '{"a'), Finished("cancelled"))
    (choice,) = whole(*events)["choices"]
    assert choice["message"]["content"] == "Sa"
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


# The stream

_HARD = ["\r", "\n", "\r\n", DONE, " ", "\u2028", "\x85", "\ufeff", "data: x", ":", "\n\n", "[DO", "NE]", "é", "a"]
texts = st.lists(st.one_of(st.sampled_from(_HARD), st.text(max_size=4)), max_size=12).map("".join)


def streamed(*pieces: str) -> bytes:
    stream = TextStream(STAMP)
    events: list[Event] = [Started("m"), *map(TextDelta, pieces), Finished("stop")]
    return b"".join(map(stream.feed, events)) + stream.finish()


@given(st.lists(texts, max_size=6))
def test_b6_any_text_in_any_split_comes_out_exactly(pieces: list[str]) -> None:
    """But for carriage returns, which SSE does not have: they are line ends."""
    stream = streamed(*pieces)
    assert answer(stream) == "".join(pieces).replace("\r\n", "\n").replace("\r", "\n")
    # Nobody is misled who looks for the end among lines, trimmed, or in what came so far.
    assert stream.decode().count(DONE) == 1
    assert stream.endswith(b"\n\ndata: [DONE]\n\n") or stream == b"data: [DONE]\n\n"


@given(texts, st.data())
def test_b6_how_a_text_is_cut_changes_nothing(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert answer(streamed(*pieces)) == answer(streamed(text))


def test_b6_the_bytes_are_as_documented() -> None:
    assert streamed("Bon", "jour") == b"data: Bon\n\ndata: jour\n\ndata: [DONE]\n\n"
    assert streamed("a\nb") == b"data: a\ndata: b\n\ndata: [DONE]\n\n"
    assert streamed(" ", "") == b"data:  \n\ndata: [DONE]\n\n"


def test_b6_thoughts_are_no_part_of_the_answer() -> None:
    stream = TextStream(STAMP)
    assert stream.feed(ReasoningDelta("I must greet.")) == b""
    with pytest.raises(BackendError):
        stream.feed(ToolCallDelta(0, "call_1", "f"))


def test_b7_a_failure_in_the_stream_is_no_text_and_no_end() -> None:
    stream = TextStream(STAMP)
    told = stream.feed(TextDelta("half")) + stream.fail(GatewayError("the model died\nhere"))
    assert heard(told) == [Heard("message", "half"), Heard("error", '{"error":"the model died\\nhere"}')]


# A load


def shares(stream: bytes) -> list[float]:
    return [json.loads(one.data)["progress"] for one in heard(stream)]


def test_b3_progress_goes_up_from_0_to_1() -> None:
    events = LoadStream()

    def blob(name: str, done: int, total: int) -> Progress:
        return Progress(status="pulling", digest=name, completed=done, total=total)

    told = b"".join(
        map(
            events.feed,
            [
                Progress(status="pulling manifest"),
                blob("a", 0, 90),
                blob("a", 45, 90),
                blob("a", 45, 90),
                blob("b", 0, 10),
                blob("a", 90, 90),
                blob("b", 9, 10),
            ],
        )
    )
    assert shares(told) == [0, 0.5, 0.9, 0.99]
    assert heard(events.end("completed")) == [Heard("message", '{"progress":1.0}'), Heard("message", '{"status":"completed"}')]  # fmt: skip
    assert shares(events.feed(Progress(status="loading", completed=1, total=4))) == [0.25]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2**60), st.integers(0, 2**60)), max_size=40))
def test_b3_progress_never_goes_back(steps: list[tuple[str, int, int]]) -> None:
    events = LoadStream()
    told = b"".join(events.feed(Progress(status="x", digest=d, completed=c, total=t)) for d, c, t in steps)
    found = shares(told)
    assert found == sorted(set(found))
    assert all(0 <= share <= 1 for share in found)


def test_b3_what_nobody_tells_is_not_invented() -> None:
    assert LoadStream().end("loaded") == b'data: {"status":"loaded"}\n\n'
    assert heard(LoadStream.fail(GatewayError("no"))) == [Heard("message", '{"error":"no"}')]
    assert heard(LoadStream.heartbeat + LoadStream().end("exists")) == [Heard("message", '{"status":"exists"}')]
