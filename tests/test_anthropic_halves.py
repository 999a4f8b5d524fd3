"""What Anthropic's server half writes, its client half reads, wherever the bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.anthropic import call, serve
from adapters.anthropic.turns import REDACTED
from canonical.errors import BackendError, Busy
from canonical.events import (
    Completion,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
    fold,
)
from canonical.messages import Reasoning
from tests.telling import STAMP, Story, stories
from tests.test_halves import COUNT, WORD, read, slices

_ASK = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]'
_cuts = st.lists(st.integers(min_value=1, max_value=300))
_object = st.dictionaries(WORD, COUNT | st.text(), max_size=3).map(lambda value: msgspec.json.encode(value).decode())


@st.composite
def _usages(draw: st.DrawFn) -> Usage:
    prompt = draw(COUNT)
    return Usage(prompt, draw(COUNT), draw(st.integers(0, prompt)), draw(COUNT))


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Any legal stream whose calls have objects for arguments, in pieces that may lie between other things."""
    events: list[Event] = [Started("m")]
    rest: dict[int, str] = {}
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "reasoning", "seal", "redacted", "call", "piece"]))):
        if kind == "text":
            events.append(TextDelta(draw(WORD)))
        elif kind == "reasoning":
            events.append(ReasoningDelta(draw(WORD)))
        elif kind == "seal" and isinstance(events[-1], ReasoningDelta) and not events[-1].signature:
            events.append(ReasoningDelta("", draw(st.sampled_from(["c2ln", "x"]))))
        elif kind == "redacted":
            events.append(ReasoningDelta("", REDACTED + draw(WORD)))
        elif kind == "call":
            text = draw(_object)
            cut = draw(st.integers(0, len(text)))
            events.append(ToolCallDelta(calls, f"call_{calls}", draw(WORD), text[:cut]))
            rest[calls] = text[cut:]
            calls += 1
        elif kind == "piece" and rest:
            index = draw(st.sampled_from(sorted(rest)))
            events.append(ToolCallDelta(index, arguments=rest.pop(index)))
    events.extend(ToolCallDelta(index, arguments=text) for index, text in rest.items())
    if calls:
        return [*events, Finished("tool_calls", draw(_usages()))]
    reason = draw(st.sampled_from(["stop", "length", "content_filter"]))
    stop = draw(st.none() | WORD) if reason == "stop" else None
    return [*events, Finished(reason, draw(_usages()), stop_sequence=stop)]


def _no_id() -> str:
    raise AssertionError("the server half never leaves out an id")


def _frames(events: Sequence[Event]) -> list[bytes]:
    encoder = serve.read_messages(_ASK + b',"stream":true}').encoder(STAMP)
    return [*(encoder.feed(event) for event in events), encoder.finish()]


def _meant(events: Sequence[Event]) -> Completion:
    return fold(events)


@given(streams(), _cuts, st.booleans())
def test_m5_a_stream_cut_anywhere(events: list[Event], cuts: list[int], heartbeats: bool) -> None:
    data = (b'event: ping\ndata: {"type":"ping"}\n\n' if heartbeats else b"").join(_frames(events))
    assert _meant(read(call.MessageReader(_no_id), slices(data, cuts))) == _meant(events)


@given(streams(), _cuts)
def test_m5_a_stream_with_other_line_ends(events: list[Event], cuts: list[int]) -> None:
    data = b"".join(_frames(events)).replace(b"\n", b"\r\n")
    assert _meant(read(call.MessageReader(_no_id), slices(data, cuts))) == _meant(events)


@given(streams())
def test_m5_a_whole_answer(events: list[Event]) -> None:
    body = serve.read_messages(_ASK + b"}").whole([fold(events)], STAMP)
    assert fold(call.read_message(body, _no_id)) == _meant(events)


@given(streams())
def test_m4_blocks_are_numbered_and_never_overlap(events: list[Event]) -> None:
    """The grammar of the contract, which the SDK's accumulating helper fails without."""
    opened, index, ended = "", -1, False
    seen = b"".join(_frames(events)).split(b"\n\n")[:-1]
    assert seen[0].startswith(b"event: message_start\n")
    assert seen[-1] == b'event: message_stop\ndata: {"type":"message_stop"}'
    for frame in seen[1:-1]:
        head, data = frame.decode().split("\n")
        record = json.loads(data.removeprefix("data: "))
        assert head == f"event: {record['type']}"
        assert not ended
        match record["type"]:
            case "content_block_start":
                assert (opened, record["index"]) == ("", index + 1)
                index += 1
                opened = record["content_block"]["type"]
                assert record["content_block"].get({"tool_use": "input"}.get(opened, opened), "") in ("", {})
            case "content_block_delta":
                assert record["index"] == index
                kinds = {"text": ["text_delta"], "tool_use": ["input_json_delta"]}
                assert record["delta"]["type"] in kinds.get(opened, ["thinking_delta", "signature_delta"])
            case "content_block_stop":
                assert opened
                assert record["index"] == index
                opened = ""
            case kind:
                assert (kind, opened) == ("message_delta", "")
                ended = True
    assert ended


@given(streams(), st.integers(min_value=1))
def test_m5_a_stream_cut_short_is_never_taken_for_whole(events: list[Event], missing: int) -> None:
    data = b"".join(_frames(events))
    end = data.rindex(b"event: message_delta")
    reader = call.MessageReader(_no_id)
    told = reader.feed(data[: max(0, end - missing % 1000)]) + reader.finish()
    assert not any(isinstance(event, Finished) for event in told)


@given(streams())
def test_m5_what_the_reader_took_from_our_stream_goes_out_the_same_again(events: list[Event]) -> None:
    """A gateway behind a gateway: the second telling is byte for byte the first."""
    first = b"".join(_frames(events))
    assert b"".join(_frames(read(call.MessageReader(_no_id), [first]))) == first


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.name)
def test_m5_the_client_half_reads_the_story(story: Story) -> None:
    *others, last = story.events
    assert isinstance(last, Finished)
    told = [*(TextDelta(e.text) if isinstance(e, TextDelta) else e for e in others), Finished(last.reason, last.usage)]
    reader = call.MessageReader(_no_id)
    events = reader.feed((story.folder / "anthropic.sse").read_bytes()) + reader.finish()
    whole = call.read_message((story.folder / "anthropic.json").read_bytes(), _no_id)
    # The format has no way to say that nobody counted.
    uncounted = last.usage is None
    for found in (events, whole):
        if uncounted:
            found[-1] = Finished(last.reason)
        assert fold(found) == fold(told)


def test_interleaved_calls_wait_for_each_other() -> None:
    events: list[Event] = [
        Started("m"),
        ToolCallDelta(0, "a", "f", '{"x":'),
        ToolCallDelta(1, "b", "g", '{"y":'),
        TextDelta("meanwhile"),
        ToolCallDelta(0, arguments="1}"),
        ToolCallDelta(1, arguments="2}"),
        Finished("tool_calls"),
    ]
    told = read(call.MessageReader(_no_id), _frames(events))
    assert [(c.name, c.arguments) for c in fold(told).tool_calls] == [("f", '{"x":1}'), ("g", '{"y":2}')]
    assert fold(told).text == "meanwhile"


def test_what_follows_a_whole_call_is_told_at_once() -> None:
    encoder = serve.read_messages(_ASK + b',"stream":true}').encoder(STAMP)
    for event in (Started("m"), ToolCallDelta(0, "a", "f", "{}")):
        encoder.feed(event)
    assert b'"text":"now"' in encoder.feed(TextDelta("now"))
    assert encoder.feed(ToolCallDelta(0, arguments=" ")) == b""
    with pytest.raises(BackendError, match="went on with tool call 0"):
        encoder.feed(ToolCallDelta(0, arguments="{"))


def test_hidden_thoughts_keep_their_signature_and_lose_their_text() -> None:
    ask = _ASK + b',"thinking":{"type":"adaptive","display":"omitted"}'
    encoder = serve.read_messages(ask + b',"stream":true}').encoder(STAMP)
    events: list[Event] = [Started("m"), ReasoningDelta("secret"), ReasoningDelta("", "c2ln"), TextDelta("15")]
    data = b"".join(map(encoder.feed, [*events, Finished("stop")]))
    assert b"secret" not in data
    assert b'"signature_delta","signature":"c2ln"' in data
    body = serve.read_messages(ask + b"}").whole([fold([*events, Finished("stop")])], STAMP)
    assert b'{"type":"thinking","thinking":"","signature":"c2ln"}' in body
    assert b"secret" not in body


def test_a_failure_is_an_error_frame_and_nothing_after_it() -> None:
    encoder = serve.read_messages(_ASK + b',"stream":true}').encoder(STAMP)
    frame = encoder.fail(Busy("full"))
    assert frame == b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"full"}}\n\n'
    with pytest.raises(Busy, match="full"):
        call.MessageReader(_no_id).feed(frame)


def test_a_broken_call_fails_a_whole_answer_unless_it_was_cut_off() -> None:
    events: list[Event] = [Started("m"), TextDelta("x"), ToolCallDelta(0, "a", "f", '{"x":')]
    whole = serve.read_messages(_ASK + b"}").whole
    with pytest.raises(BackendError, match="not a JSON object"):
        whole([fold([*events, Finished("tool_calls")])], STAMP)
    answer = json.loads(whole([fold([*events, Finished("length")])], STAMP))
    assert (answer["stop_reason"], [block["type"] for block in answer["content"]]) == ("max_tokens", ["text"])


# What other servers do


def _sse(*records: str) -> bytes:
    return b"".join(b"data: " + record.encode() + b"\n\n" for record in records)


_END = '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}'


def test_a_stream_without_event_lines_and_without_a_start() -> None:
    text = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}'
    events = read(call.MessageReader(_no_id), [_sse(text, '{"type":"news"}', _END)])
    assert events == [Started(), TextDelta("Hi"), Finished("stop", Usage(0, 2))]


def test_arguments_at_the_start_and_no_id_and_a_wrong_reason() -> None:
    start = '{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"f","input":{"x":1}}}'
    stop = '{"type":"content_block_stop","index":0}'
    done = '{"type":"message_stop"}'
    events = read(call.MessageReader(lambda: "toolu_new"), [_sse(start, stop, _END, done)])
    (made,) = fold(events).tool_calls
    assert (made.id, made.name, made.arguments, fold(events).reason) == ("toolu_new", "f", '{"x":1}', "tool_calls")


def test_blocks_of_the_vendors_own_servers_are_passed_over() -> None:
    start = '{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web"}}'
    piece = '{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}'
    events = read(call.MessageReader(_no_id), [_sse(start, piece, _END)])
    assert events == [Started(), Finished("stop", Usage(0, 2))]


def test_usage_counts_the_cache_and_later_numbers_replace_earlier_ones() -> None:
    start = (
        '{"type":"message_start","message":{"model":"m","usage":{"input_tokens":5,"output_tokens":1,'
        '"cache_creation_input_tokens":3,"cache_read_input_tokens":2}}}'
    )
    events = read(call.MessageReader(_no_id), [_sse(start, _END)])
    assert events[-1] == Finished("stop", Usage(prompt=10, completion=2, cached=2))


def test_signed_pieces_stay_apart_when_folded() -> None:
    events: list[Event] = [
        Started("m"),
        ReasoningDelta("one "),
        ReasoningDelta("two"),
        ReasoningDelta("", "s1"),
        ReasoningDelta("three", "s2"),
        ReasoningDelta("four"),
        Finished("stop"),
    ]
    assert fold(events).signed == (Reasoning("one two", "s1"), Reasoning("three", "s2"), Reasoning("four"))
    assert fold(events).reasoning == "one twothreefour"
