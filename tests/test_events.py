"""The grammar of events, their fold, and the canonical values around them."""

from __future__ import annotations

import inspect

import pytest
from msgspec import Raw

from canonical import errors
from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest
from canonical.events import (
    Check,
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
from canonical.media import Blob
from canonical.messages import Image, Message, Reasoning, Text, ToolCall
from canonical.models import Capability
from canonical.requests import Generate, Origin, Prompt, Tool, needs

START, END = Started("m"), Finished("stop")
CALL = ToolCallDelta(0, "a", "f")


def _check(*events: Event) -> None:
    check = Check()
    for event in events:
        check.feed(event)
    check.finish()


@pytest.mark.parametrize(
    "events",
    [
        (START, END),
        (START, TextDelta("x"), ReasoningDelta("y"), TextDelta("z"), END),
        (
            START,
            CALL,
            ToolCallDelta(0, arguments="{"),
            ToolCallDelta(1, "b", "f"),
            ToolCallDelta(0, arguments="}"),
            END,
        ),
    ],
)
def test_legal(events: tuple[Event, ...]) -> None:
    _check(*events)


@pytest.mark.parametrize(
    "events",
    [
        (TextDelta("x"),),
        (END,),
        (START, START),
        (START, END, END),
        (START, END, TextDelta("late")),
        (START, END, START),
        (START, ToolCallDelta(1, "a", "f")),
        (START, ToolCallDelta(-1, arguments="x")),
        (START, ToolCallDelta(0, arguments="x")),
        (START, ToolCallDelta(0, "a", "")),
        (START, ToolCallDelta(0, "", "f")),
        (START, CALL, CALL),
        (START, CALL, ToolCallDelta(2, "b", "f")),
        (START, CALL, ToolCallDelta(-1, arguments="x")),
    ],
)
def test_illegal(events: tuple[Event, ...]) -> None:
    with pytest.raises(BackendError):
        _check(*events)


@pytest.mark.parametrize("events", [(), (START,), (START, TextDelta("x"))])
def test_a_stream_that_just_stops_is_a_failure(events: tuple[Event, ...]) -> None:
    with pytest.raises(BackendError) as caught:
        _check(*events)
    assert caught.value.code == "incomplete_stream"


def test_fold() -> None:
    token = TokenLogprob("x", -1.0)
    whole = fold(
        [
            START,
            ReasoningDelta("a"),
            ReasoningDelta("b"),
            TextDelta("x", (token,)),
            TextDelta("y"),
            CALL,
            ToolCallDelta(1, "b", "g", "{}"),
            ToolCallDelta(0, arguments="{}"),
            Finished("tool_calls", Usage(1, 2), Timings(total=3)),
        ]
    )
    assert (whole.model, whole.text, whole.reasoning, whole.logprobs) == ("m", "xy", "ab", (token,))
    assert whole.tool_calls == (ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}"))
    assert (whole.reason, whole.usage, whole.timings) == ("tool_calls", Usage(1, 2), Timings(total=3))


def test_every_error_has_a_status_and_all_but_the_root_a_code() -> None:
    tree = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(tree) > 15
    for kind in tree:
        error = kind("why", param="p")
        assert 400 <= error.status <= 599
        assert bool(error.code) is (kind is not GatewayError)
        assert (str(error), error.message, error.param) == ("why", "why", "p")


def test_an_error_may_bear_another_status_and_code() -> None:
    error = Busy("why", status=429, code="c", retry_after=1.5)
    assert (error.status, error.code, error.retry_after, error.retry) == (429, "c", 1.5, True)
    assert (Busy("x").status, Busy("x").code, InvalidRequest.retry) == (503, "server_busy", False)


def test_the_text_of_a_message_is_its_text_parts() -> None:
    assert Message("user", (Text("a"), Reasoning("no"), Text("b"))).text == "ab"


def test_origin_keeps_unknown_fields_as_they_came() -> None:
    origin = Origin("ollama", b'{"model":"m","new":[1, 2],"options":{"seed":1,"num_gpu":2},"x":null}')
    assert origin.extras(frozenset({"model", "options"})) == {"new": Raw(b"[1, 2]"), "x": Raw(b"null")}
    assert origin.extras(frozenset({"seed"}), inside="options") == {"num_gpu": Raw(b"2")}
    assert origin.extras(frozenset(), inside="x") == {}
    assert origin.extras(frozenset(), inside="absent") == {}


@pytest.mark.parametrize(
    ("request_", "capabilities"),
    [
        (Generate(model="m"), {Capability.CHAT}),
        (Generate(model="m", prompt=Prompt(text="x")), {Capability.COMPLETE}),
        (Generate(model="m", prompt=Prompt(text="x", suffix="")), {Capability.INSERT}),
        (Generate(model="m", tools=(Tool(name="f"),)), {Capability.CHAT, Capability.TOOLS}),
        (
            Generate(model="m", messages=(Message("user", (Image(Blob(b"", "image/png")),)),)),
            {Capability.CHAT, Capability.VISION},
        ),
    ],
)
def test_needs(request_: Generate, capabilities: set[Capability]) -> None:
    assert needs(request_) == capabilities
