"""The client half reads what the server half wrote, whatever the answer and wherever its bytes are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dialect import Ask, Stamp
from adapters.ollama import call, serve
from canonical.errors import BackendError, InvalidRequest, NotFound
from canonical.events import (
    Check,
    Completion,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    fold,
)
from tests.cutting import cut

STAMP = Stamp("abc", lambda: 1_787_302_800_104_000_000)
ROUTES = {
    "chat": (serve.read_chat, call.ChatReader, call.read_chat),
    "generate": (serve.read_generate, call.GenerateReader, call.read_generate),
}

_text = st.text(max_size=20) | st.sampled_from(["\n", "\u2028", "\u0085", "\u2029", '"}\n{"', "\x00", "data: "])
_numbers = st.integers(0, 2**53)
_token = st.builds(
    TokenLogprob,
    _text,
    st.floats(-100, 0),
    st.none() | st.lists(st.integers(0, 255), max_size=4).map(tuple),
    st.lists(st.builds(TokenLogprob, _text, st.floats(-100, 0)), max_size=3).map(tuple),
)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Streams of the canonical grammar; arguments are objects, in any pieces and with any blanks."""
    events: list[Event] = [Started("backend")]
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["text", "token", "reasoning", "call"]), max_size=8)):
        match kind:
            case "text":
                events.append(TextDelta(draw(_text)))
            case "token":
                events.append(TextDelta(draw(_text), tuple(draw(st.lists(_token, min_size=1, max_size=2)))))
            case "reasoning":
                events.append(ReasoningDelta(draw(_text)))
            case _:
                value = draw(st.dictionaries(_text, _json, max_size=3))
                text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(st.none() | st.just(1)))
                cut = draw(st.integers(0, len(text)))
                events.append(ToolCallDelta(calls, f"call_{calls}", draw(st.text(min_size=1, max_size=5)), text[:cut]))
                events.append(ToolCallDelta(calls, arguments=text[cut:]))
                calls += 1
    reason = draw(st.sampled_from(["length", "tool_calls" if calls else "stop"]))
    usage = draw(st.none() | st.builds(Usage, _numbers, _numbers))
    timings = draw(st.none() | st.builds(Timings, _numbers, _numbers, st.none() | _numbers, st.none() | _numbers))
    return [*events, Finished(reason, usage, timings)]  # type: ignore[arg-type] # sampled_from widens the Literal


def meaning(events: list[Event]) -> Completion:
    """What Ollama's wire can tell of a stream: no cached or reasoning tokens, no zeros, one form of the arguments."""
    answer = fold(events)
    usage, timings = answer.usage, answer.timings
    if usage is not None:
        usage = Usage(usage.prompt, usage.completion) if usage.prompt or usage.completion else None
    if timings is not None:
        parts = [timings.total or None, timings.load or None, timings.prompt or None, timings.eval or None]
        timings = Timings(*parts) if any(parts) else None
    calls = tuple((call.id, call.name, json.loads(call.arguments)) for call in answer.tool_calls)
    return Completion(
        model="",
        text=answer.text,
        reasoning=answer.reasoning,
        tool_calls=calls,  # type: ignore[arg-type] # parsed, to compare arguments by value
        logprobs=answer.logprobs,
        reason=answer.reason,
        usage=usage,
        timings=timings,
    )


def ask(route: str, *, stream: bool) -> Ask:
    fields = {"model": "m", "prompt": "x", "messages": [{"role": "user"}], "stream": stream}
    found = ROUTES[route][0](json.dumps(fields | {"logprobs": True, "top_logprobs": 20}).encode())
    assert isinstance(found, Ask)
    return found


def no_id() -> str:
    raise AssertionError("every call has its id")


def order(events: list[Event]) -> list[tuple[str, str]]:
    """Text and reasoning in their order, joined where neighbours are of one kind."""
    found: list[tuple[str, str]] = []
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta) and event.text:
            kind = type(event).__name__
            if found and found[-1][0] == kind:
                found[-1] = (kind, found[-1][1] + event.text)
            else:
                found.append((kind, event.text))
    return found


@pytest.mark.parametrize("route", ROUTES)
@given(events=streams(), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_m5_a_stream_comes_through(route: str, events: list[Event], cuts: list[int]) -> None:
    encoder = ask(route, stream=True).encoder(STAMP)
    data = b"".join([*map(encoder.feed, events), encoder.finish()])
    reader = ROUTES[route][1](no_id)
    read = [event for part in cut(data, cuts) for event in reader.feed(part)] + reader.finish()
    check = Check()
    for event in read:
        check.feed(event)
    check.finish()
    assert meaning(read) == meaning(events)
    assert order(read) == order(events)


@pytest.mark.parametrize("route", ROUTES)
@given(events=streams())
def test_m5_one_byte_at_a_time_is_the_same(route: str, events: list[Event]) -> None:
    encoder = ask(route, stream=True).encoder(STAMP)
    data = b"".join(map(encoder.feed, events))
    slow, fast = ROUTES[route][1](no_id), ROUTES[route][1](no_id)
    assert [event for byte in data for event in slow.feed(bytes([byte]))] == fast.feed(data)


@pytest.mark.parametrize("route", ROUTES)
@given(events=streams(), at=st.integers(0, 10_000))
def test_m5_a_stream_cut_short_has_no_end(route: str, events: list[Event], at: int) -> None:
    encoder = ask(route, stream=True).encoder(STAMP)
    data = b"".join(map(encoder.feed, events))
    whole = len(data) - len(b"}\n")
    reader = ROUTES[route][1](no_id)
    read = reader.feed(data[: at % (whole + 1)]) + reader.finish()
    assert not any(isinstance(event, Finished) for event in read)


@pytest.mark.parametrize("route", ROUTES)
@given(events=streams())
def test_m5_a_whole_answer_comes_through(route: str, events: list[Event]) -> None:
    body = ask(route, stream=False).whole([fold(events)], STAMP)
    assert meaning(ROUTES[route][2](body, no_id)) == meaning(events)


@pytest.mark.parametrize("route", ROUTES)
@given(events=streams())
def test_m2_every_object_is_one_line_for_every_reader(route: str, events: list[Event]) -> None:
    """``str.splitlines``, which the official Python client uses, knows line ends that JSON does not escape."""
    encoder = ask(route, stream=True).encoder(STAMP)
    for event in events:
        for line in encoder.feed(event).decode().splitlines():
            assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("route", ROUTES)
@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=3))
def test_m5_garbage_is_a_backend_error_or_nothing(route: str, data: bytes, cuts: list[int]) -> None:
    reader = ROUTES[route][1](no_id)
    try:
        read = [event for part in cut(data, cuts) for event in reader.feed(part)] + reader.finish()
    except BackendError:
        return
    assert not any(isinstance(event, Finished) for event in read)


@given(body=st.binary(max_size=60) | _json.map(lambda value: json.dumps(value).encode()))
def test_no_body_whatsoever_is_our_fault(body: bytes) -> None:
    for read in (serve.read_chat, serve.read_generate, serve.read_embed, serve.read_embeddings, serve.read_show):
        try:
            read(body)
        except (InvalidRequest, NotFound) as error:
            json.loads(serve.error_body(error))


_FIELDS = ("messages", "prompt", "input", "options", "keep_alive", "think", "format", "tools", "images", "Raw")


@given(
    fields=st.fixed_dictionaries(
        {"model": st.just("m")}, optional={name: _json | st.just([{"role": "user"}]) for name in _FIELDS}
    )
)
def test_no_value_of_a_field_is_our_fault(fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()
    for read in (serve.read_chat, serve.read_generate, serve.read_embed, serve.read_embeddings, serve.read_show):
        try:
            found = read(body)
        except InvalidRequest as error:
            json.loads(serve.error_body(error))
        else:
            if isinstance(found, Ask):
                request = found.requests[0]
                json.loads((call.write_generate if request.prompt else call.write_chat)(request, "theirs"))
