"""What a hostile model may write: looking for calls and thoughts in it costs in proportion to it, and not much."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from adapters.ollama import call as ollama
from adapters.openai import call as openai
from canonical import written_calls
from canonical.errors import BackendError
from canonical.events import CALLS, Check, ReasoningDelta, Started, TextDelta, ToolCallDelta
from canonical.think import BLANKS, ThinkSplitter
from canonical.written_calls import PATIENCE, SLICE, Arguments, CallSplitter, Opened

CALL = '<tool_call>{"name":"f","arguments":{}}</tool_call>'
LURES = (
    "{",
    "\n{",
    "\n[",
    "\n```\n",
    "<tool_call>",
    "<tool_call>{",
    '<tool_call>{"name":"f"',
    '\n{"name":"\\',
    '<tool_call>[{"arguments":{',
    '<tool_call>{"name":"f","arguments":{},"x":',
    '\n{"function":{"name":"f","arguments":{}}}',
    CALL,
)


class Counted:
    """A compiled pattern that counts the characters between where it is asked to look and where it finds."""

    def __init__(self, pattern: object) -> None:
        self.pattern = pattern
        self.looked = 0

    def search(self, text: str, at: int = 0, *end: int) -> object:
        """As the pattern's own."""
        found = self.pattern.search(text, at, *end)  # type: ignore[attr-defined]
        self.looked += (found.end() if found else len(text)) - at
        return found


@pytest.mark.parametrize("lure", LURES)
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_looking_for_calls_costs_in_proportion(lure: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pattern, and every look at a head, counts: 200 KB of lures are read a few times over, however they come."""
    patterns = [Counted(getattr(written_calls, name)) for name in ("_MARK", "_TAG", "_STEPS", "_QUOTED")]
    for name, pattern in zip(("_MARK", "_TAG", "_STEPS", "_QUOTED"), patterns, strict=True):
        monkeypatch.setattr(written_calls, name, pattern)
    text = lure * (200_000 // len(lure))
    splitter = CallSplitter({"f"})
    pieces = [piece for at in range(0, len(text), step) for piece in splitter.feed(text[at : at + step])]
    pieces += splitter.finish()
    assert sum(pattern.looked for pattern in patterns) < 2 * PATIENCE + 20 * len(text)
    if not any(isinstance(piece, Opened | Arguments) for piece in pieces):
        assert "".join(map(str, pieces)) == text


def test_many_calls_end_in_text() -> None:
    splitter = CallSplitter({"f"})
    text = (CALL + "\n") * 20_000
    pieces = splitter.feed(text) + splitter.finish()
    calls = sum(isinstance(piece, Opened) for piece in pieces)
    assert 1_000 < calls < 20_000
    assert isinstance(pieces[-1], str)
    assert pieces[-1].startswith("<tool_call>")
    assert pieces[-1].count("<tool_call>") == 20_000 - calls


def test_text_that_comes_at_once_is_one_piece() -> None:
    text = "\n{a}" * SLICE
    assert CallSplitter({"f"}).feed(text + "b") == [text + "b"]


def test_a_call_behind_many_objects_is_one() -> None:
    """As in an answer that shows a lot of JSON."""
    objects = '{"name": "Anna", "of": [{"age": 30}]}\n{"type": "b"}\n' * 2_000
    pieces = CallSplitter({"f"}).feed(f"{objects}{CALL}")
    assert pieces[0] == objects.rstrip()
    assert Opened("f") in pieces


def test_blanks_without_end_are_not_held() -> None:
    splitter = ThinkSplitter()
    events = [event for _ in range(3 * BLANKS) for event in splitter.feed(" ")]
    assert splitter.settled
    assert events == [TextDelta(" " * (BLANKS + 7)), *[TextDelta(" ")] * (2 * BLANKS - 7)]


def test_blanks_without_end_in_a_thought_are_not_held() -> None:
    splitter = ThinkSplitter()
    events = [event for piece in ("<think>a", *[" "] * 3 * BLANKS, "</think>b") for event in splitter.feed(piece)]
    assert events[0] == ReasoningDelta("a")
    assert events[1] == ReasoningDelta(" " * (BLANKS + 1))
    assert events[-1] == TextDelta("b")


@pytest.mark.parametrize("count", [CALLS, CALLS + 1])
@pytest.mark.parametrize("dialect", ["openai", "ollama"])
def test_calls_are_counted_even_within_one_frame(dialect: str, count: int) -> None:
    """Each piece is compared with every call before it: a frame of 90,000 held the gateway for minutes."""
    calls = [{"index": at, "id": f"c{at}", "function": {"name": "f", "arguments": "{}"}} for at in range(count)]
    frame: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "delta": {"tool_calls": calls}}]}
    data, reader = b"data: %b\n\n" % json.dumps(frame).encode(), cast("Any", openai.ChatReader(lambda: "new"))
    if dialect == "ollama":
        for one in calls:
            one["function"]["arguments"] = {}  # type: ignore[index]
        frame = {"model": "m", "message": {"role": "assistant", "content": "", "tool_calls": calls}, "done": False}
        data, reader = json.dumps(frame).encode() + b"\n", ollama.ChatReader(lambda: "new")
    assert sum(isinstance(event, ToolCallDelta) for event in reader.feed(data)) == CALLS
    assert ("more than 1000 tool calls" in str(reader.failure)) is (count > CALLS)


def test_calls_are_counted_behind_every_backend() -> None:
    check = Check()
    check.feed(Started("m"))
    for number in range(CALLS):
        check.feed(ToolCallDelta(number, f"c{number}", "f"))
    check.feed(ToolCallDelta(0, arguments="{}"))
    with pytest.raises(BackendError, match="more than 1000 tool calls"):
        check.feed(ToolCallDelta(CALLS, "c", "f"))
