"""Splitters of a model's raw text: thoughts and tool calls, whatever the slices it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama_cpp.tags import Call, ToolSplitter
from canonical.events import ReasoningDelta, TextDelta
from canonical.think import ThinkSplitter
from tests.cutting import cut


def think(*slices: str, thinking: bool = False) -> tuple[str, str]:
    """The thought and the text, each joined."""
    splitter = ThinkSplitter(thinking=thinking)
    events = [event for piece in slices for event in splitter.feed(piece)] + splitter.finish()
    thought = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    return thought, "".join(event.text for event in events if isinstance(event, TextDelta))


def calls(*slices: str) -> list[str | Call]:
    """Texts and calls; neighbouring texts are joined."""
    splitter = ToolSplitter()
    found: list[str | Call] = []
    for piece in [piece for slice_ in slices for piece in splitter.feed(slice_)] + splitter.finish():
        if isinstance(piece, str) and found and isinstance(found[-1], str):
            found[-1] += piece
        else:
            found.append(piece)
    return found


CUTS = st.lists(st.integers(0, 200), max_size=8)
PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", " ", "\n", "a", "b<", "15", "<tool_call>"]),
    max_size=10,
).map("".join)

THINKING = [
    ("<think>\nI must add.\n</think>\n\n15", "I must add.", "15"),
    ("  <think>x</think>y", "x", "y"),
    ("<think></think>y", "", "y"),
    ("plain", "", "plain"),
    (" a <think> b", "", " a <think> b"),
    ("<thin", "", "<thin"),
    ("<think>cut off\n", "cut off", ""),
    ("<think>a </thi b</think> c", "a </thi b", "c"),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "thought", "answer"), THINKING)
def test_m3_thoughts_are_told_from_text(text: str, thought: str, answer: str) -> None:
    assert think(text) == (thought, answer)
    assert think(*text) == (thought, answer)


def test_a_prompt_may_have_opened_the_thought() -> None:
    assert think("\nso\n</think>\nyes", thinking=True) == ("so", "yes")


@given(text=PIECES, at=CUTS, thinking=st.booleans())
def test_thoughts_do_not_depend_on_the_slices(text: str, at: list[int], thinking: bool) -> None:
    assert think(*cut(text, at), thinking=thinking) == think(text, thinking=thinking)


@given(text=st.text(), at=CUTS)
def test_text_without_tags_passes_unchanged(text: str, at: list[int]) -> None:
    if "<think>" not in text:
        assert think(*cut(text, at)) == ("", text)


def test_text_is_not_held_back_longer_than_it_must_be() -> None:
    splitter = ThinkSplitter()
    assert splitter.feed("a <") == [TextDelta("a <")]
    inside = ThinkSplitter()
    inside.feed("<think>")
    assert inside.feed("so</t") == [ReasoningDelta("so")]
    assert inside.feed("o") == [ReasoningDelta("</to")]


ONE = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
TOOLS = [
    (ONE, [Call("f", '{"a": 1}')]),
    (f"Wait.\n{ONE}", ["Wait.", Call("f", '{"a": 1}')]),
    (f"{ONE}\n{ONE}\n", [Call("f", '{"a": 1}'), Call("f", '{"a": 1}')]),
    (f"{ONE} and", [Call("f", '{"a": 1}'), "and"]),
    ('<tool_call>{"name": "f"}</tool_call>', [Call("f", "{}")]),
    ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [Call("f", '{"a": 1}')]),
    ('<tool_call>{"name": "f", "arguments": {"a": "</tool_call>"}}</tool_call>', [Call("f", '{"a": "</tool_call>"}')]),
    ("<tool_call>nonsense</tool_call>", ["<tool_call>nonsense</tool_call>"]),
    ('<tool_call>{"name": "f", "arguments": {}}', [Call("f", "{}")]),
    ("a < b  ", ["a < b  "]),
    ("<tool", ["<tool"]),
]


@pytest.mark.parametrize(("text", "found"), TOOLS)
def test_m3_calls_are_told_from_text(text: str, found: list[str | Call]) -> None:
    assert calls(text) == found
    assert calls(*text) == found


@given(
    text=st.lists(st.sampled_from([ONE, "<tool_call>", "</tool_call>", "\n", " ", "a", "<to", "b"])).map("".join),
    at=CUTS,
)
def test_calls_do_not_depend_on_the_slices(text: str, at: list[int]) -> None:
    assert calls(*cut(text, at)) == calls(text)


@given(text=st.text(), at=CUTS)
def test_text_without_calls_passes_unchanged(text: str, at: list[int]) -> None:
    if "<tool_call>" not in text:
        assert "".join(piece for piece in calls(*cut(text, at)) if isinstance(piece, str)) == text
