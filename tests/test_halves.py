"""What a dialect's server half writes, its client half reads, wherever the bytes are cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from adapters.dialect import Reader, Stamp
from adapters.openai import call, serve
from canonical.events import (
    Check,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    fold,
)

STAMP = Stamp("1", lambda: 1_700_000_000_000_000_000)
COUNT = st.integers(min_value=0, max_value=2**31)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
WORD = st.text(min_size=1)

_other = st.builds(TokenLogprob, token=st.text(), logprob=FLOAT)
_token = st.builds(TokenLogprob, token=st.text(), logprob=FLOAT, top=st.lists(_other, max_size=2).map(tuple))
_usage = st.none() | st.builds(Usage, prompt=COUNT, completion=COUNT, cached=COUNT, reasoning=COUNT)
_text = st.builds(TextDelta, text=WORD, logprobs=st.lists(_token, max_size=2).map(tuple))
_cuts = st.lists(st.integers(min_value=1, max_value=300))


@st.composite
def streams(draw: st.DrawFn, *, plain: bool = False) -> list[Event]:
    """Any legal stream; ``plain``: of text alone."""
    events: list[Event] = [Started("m")]
    calls = 0
    kinds = st.sampled_from(["text"] if plain else ["text", "reasoning", "call", "piece"])
    for kind in draw(st.lists(kinds)):
        if kind == "text":
            events.append(draw(_text))
        elif kind == "reasoning":
            events.append(ReasoningDelta(draw(WORD)))
        elif kind == "call":
            events.append(ToolCallDelta(calls, f"call_{calls}", draw(WORD), draw(WORD)))
            calls += 1
        elif calls:
            events.append(ToolCallDelta(draw(st.integers(0, calls - 1)), arguments=draw(st.text())))
    reasons = ["tool_calls"] if calls else ["stop", "length", "content_filter"]
    return [*events, Finished(draw(st.sampled_from(reasons)), draw(_usage))]


def slices(data: bytes, cuts: Iterable[int]) -> Iterable[bytes]:
    for cut in cuts:
        yield data[:cut]
        data = data[cut:]
    yield data


def read(reader: Reader, pieces: Iterable[bytes]) -> list[Event]:
    """The checked events of these bytes."""
    check, events = Check(), []
    for piece in pieces:
        events += reader.feed(piece)
    events += reader.finish()
    for event in events:
        check.feed(event)
    check.finish()
    return events


def _no_id() -> str:
    raise AssertionError("the server half never leaves out an id")


_TURN = b'{"model":"m","messages":[{"role":"user","content":"x"}]'
_USAGE = b',"stream":true,"stream_options":{"include_usage":true}}'


def _write(ask_body: bytes, events: Sequence[Event], *, chat: bool = True, heartbeats: bool = False) -> bytes:
    ask = serve.read_chat(ask_body) if chat else serve.read_completion(ask_body)
    encoder = ask.encoder(STAMP)
    beat = b": ping\n\n" if heartbeats else b""
    return beat.join([*(encoder.feed(event) for event in events), encoder.finish()])


@given(streams(), _cuts, st.booleans())
def test_m5_a_chat_stream_cut_anywhere(events: list[Event], cuts: list[int], heartbeats: bool) -> None:
    data = _write(_TURN + _USAGE, events, heartbeats=heartbeats)
    assert read(call.ChatReader(_no_id), slices(data, cuts)) == events


@given(streams(), _cuts)
def test_m5_a_chat_stream_with_other_line_ends(events: list[Event], cuts: list[int]) -> None:
    data = _write(_TURN + _USAGE, events).replace(b"\n", b"\r\n")
    assert read(call.ChatReader(_no_id), slices(data, cuts)) == events


@given(streams())
def test_m5_a_whole_chat_answer(events: list[Event]) -> None:
    ask = serve.read_chat(_TURN + b"}")
    body = ask.whole([fold(events)], STAMP)
    assert fold(call.read_chat(body, _no_id)) == fold(events)


@given(streams(plain=True), _cuts)
def test_m5_a_completion_cut_anywhere(events: list[Event], cuts: list[int]) -> None:
    data = _write(b'{"model":"m","prompt":"x"' + _USAGE, events, chat=False)
    # Equal alternatives are one name in this format's objects.
    assert fold(read(call.CompletionReader(), slices(data, cuts))).text == fold(events).text
    body = serve.read_completion(b'{"model":"m","prompt":"x"}').whole([fold(events)], STAMP)
    assert fold(call.read_completion(body)).text == fold(events).text
    assert call.read_completion(body)[-1] == events[-1]


@given(streams(), st.integers(min_value=1))
def test_m5_a_stream_cut_short_is_never_taken_for_whole(events: list[Event], missing: int) -> None:
    data = _write(_TURN + b',"stream":true}', events)
    end = data.rindex(b"data: ", 0, data.rindex(b"data: "))
    reader = call.ChatReader(_no_id)
    read_events = reader.feed(data[: max(0, end - missing % 1000)]) + reader.finish()
    assert not any(isinstance(event, Finished) for event in read_events)


@given(streams())
def test_every_frame_is_one_line_of_json(events: list[Event]) -> None:
    for frame in _write(_TURN + _USAGE, events).split(b"\n\n")[:-2]:
        assert len(frame.decode().splitlines()) == 1
        chunk = json.loads(frame.removeprefix(b"data: "))
        assert {"id", "object", "created", "model", "choices"} <= chunk.keys()
