"""Tool calls that models write into their text: every form, any slices, and text that only looks like one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.call_heads import HEAD_LIMIT, WHOLE_LIMIT
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, TokenLogprob, ToolCallDelta, fold
from canonical.prompted_calls import CallReader, FirstCall
from canonical.written_calls import BLANKS, GARBAGE, Arguments, CallSplitter, Opened
from tests.cutting import cut

NAMES = {"f", "get_weather"}
C = '{"name": "f", "arguments": {"a": 1}}'
W = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
T = f"<tool_call>\n{C}\n</tool_call>"
F = ("f", '{"a": 1}')
G = ("get_weather", '{"city": "Paris"}')


def read(*slices: str) -> list[str | tuple[str, str]]:
    """Texts and calls; neighbouring texts are joined, and the pieces of arguments."""
    splitter = CallSplitter(NAMES)
    found: list[Any] = []
    for piece in [piece for slice_ in slices for piece in splitter.feed(slice_)] + splitter.finish():
        if isinstance(piece, Opened):
            found.append((piece.name, ""))
        elif isinstance(piece, Arguments):
            found[-1] = (found[-1][0], found[-1][1] + piece.text)
        elif found and isinstance(found[-1], str):
            found[-1] += piece
        else:
            found.append(piece)
    return found


CALLS = {
    "the form that is asked for": (T, [F]),
    "its arguments called parameters": (f"<tool_call>{W}</tool_call>", [G]),
    "text before": (f"Wait.\n\n{T}", ["Wait.", F]),
    "in the midst of a line": (f"Wait {T}", ["Wait", F]),
    "text behind": (f"{T}\nSo.", [F, "So."]),
    "several": (f"{T}\n{T} {T}", [F, F, F]),
    "several in one tag": (f"<tool_call>{C}\n{W}</tool_call>", [F, G]),
    "a list in a tag": (f"<tool_call>\n[{C}, {W}]\n</tool_call>\nSo.", [F, G, "So."]),
    "no closing tag": (f"<tool_call>\n{C}", [F]),
    "no closing tag, and the next": (f"<tool_call>{C}\n<tool_call>{W}</tool_call>", [F, G]),
    "one brace too many": (f'<tool_call>{C}\n"}}}}\n</tool_call>', [F]),
    "one brace too few": ('<tool_call>{"name": "f", "arguments": {"a": 1}\n</tool_call>So.', [F, "So."]),
    "a fence in the tag": (f"<tool_call>\n```json\n{C}\n```\n</tool_call>", [F]),
    "a fenced block": (f"Sure:\n```json\n{C}\n```\nSo.", ["Sure:", F, "So."]),
    "a fenced block without a name": (f"```\n{W}\n```", [G]),
    "a fenced list": (f"```json\n[\n  {C},\n  {W}\n]\n```", [F, G]),
    "two in a fence": (f"```json\n{C}\n{W}\n```", [F, G]),
    "tags in a fence": (f"```xml\n{T}\n{T}\n```\nSo.", [F, F, "So."]),
    "a fence that ends in half a tag": (f"```json\n{C}\n<tool_ca", [F, "<tool_ca"]),
    "a fence that ends in half its end": (f"```json\n{C}\n``", [F, "``"]),
    "a fence that never ends": (f"```json\n{C}\nSo.", [F, "So."]),
    "a bare object": (C, [F]),
    "an indented first line": (f"\n  {C}", [F]),
    "a bare object behind text": (f"I call:\n{C}\n", ["I call:", F]),
    "bare objects": (f"{C}\n{W}", [F, G]),
    "a bare list": (f"[{C}, {W}]", [F, G]),
    "a list in lines": (f"[\n  {C},\n  {W}\n]", [F, G]),
    "arguments first": ('{"arguments": {"a": 1}, "name": "f"}', [F]),
    "OpenAI's own form": (f'{{"type": "function", "function": {C}}}', [F]),
    "with an id": ('{"type": "function", "name": "f", "parameters": {"a": 1}}', [F]),
    "fields behind": ('{"name": "f", "arguments": {"a": 1}, "id": {"x": "}"}}\nSo.', [F, "So."]),
    "a field between": ('{"name": "f", "id": "x", "arguments": {"a": 1}}', [F]),
    "a list of calls": (f'{{"tool_calls": [{C}, {{"function": {W.replace("parameters", "arguments")}}}]}}', [F, G]),
    "a function's name": ('{"function": "f", "arguments": {"a": 1}}', [F]),
    "arguments as a text": ('{"name": "f", "arguments": "{\\"a\\": 1}"}', [F]),
    "no arguments": ('<tool_call>{"name": "f"}</tool_call>', [("f", "{}")]),
    "null": ('{"name": "f", "arguments": null}', [("f", "{}")]),
    "a name with an escape": ('{"name": "\\u0066", "arguments": {"a": 1}}', [F]),
    "a tag inside of a string": (
        '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>\\"}"}}</tool_call>So.',
        [("f", '{"a": "</tool_call>\\"}"}'), "So."],
    ),
    "fields that never end": ('{"name": "f", "arguments": {"a": 1}, and so on.', [F, ", and so on."]),
    "fields that are too long": (
        '{"name": "f", "arguments": {"a": 1}, "' + "x" * HEAD_LIMIT + '": 1} So.',
        [F, ', "' + "x" * HEAD_LIMIT + '": 1} So.'],
    ),
    "cut off": ('<tool_call>{"name": "f", "arguments": {"a": ', [("f", '{"a": ')]),
}

TEXTS = {
    "words": "Hello.",
    "blanks": "  \n\n",
    "a sum": "a < b {c} [d]\n",
    "a tag alone": "<tool_call>nonsense</tool_call>",
    "a tag cut off": "a <tool_ca",
    "an empty tag": "<tool_call>\n",
    "a tool that is not there": '<tool_call>{"name": "g", "arguments": {}}</tool_call>',
    "an object in a line": f"Write {C} for it.",
    "another object": '{"name": "Anna", "age": 30}',
    "a name without arguments": '{"name": "f"}',
    "a name that is a number": '{"name": 1, "arguments": {}}',
    "a list of numbers": "[1, 2]",
    "a list of lists": "[[1], [2]]",
    "half an object": '{"name": "f", ',
    "half a wrapping": '{"type": "function", "function": {"name": "f", ',
    "half a key": '{"na',
    "half a name": '{"name": "get_',
    "half a list": "[",
    "arguments that are a list": '{"name": "f", "arguments": [1]}',
    "arguments that are a number": '{"name": "f", "parameters": 1}',
    "arguments that are words": '{"name": "f", "arguments": "Paris"}',
    "single quotes": "{'name': 'f', 'arguments': {}}",
    "a tool's definition": '{"name": "f", "description": "F", "parameters": {"type": "object"}}',
    "OpenAI's definition": '{"type": "function", "function": {"name": "f", "parameters": {}}}',
    "no calls": '{"tool_calls": []}',
    "a wrong escape": '{"name": "\\x", "arguments": {}}',
    "not JSON": '{"arguments": {nonsense}, "name": "f"}',
    "code": f"```python\n{C}\n```\nSo.",
    "code within a line": f"``` {C}\n```",
    "a fence of something else": '```json\n{"a": 1}\n```',
    "a fence's beginning": "so:\n``",
    "a fence of XML": "```xml\n<a>\n```",
    "a colon that is missing": '{"name" "f"}',
    "a fence with a long name": "```" + "x" * 100 + f"\n{C}",
    "an object that begins too late": "<tool_call>" + " " * HEAD_LIMIT + C,
    "an object that is too long": '{"arguments": {"a": "' + "x" * WHOLE_LIMIT + '"}, "name": "f"}',
    "an object that never ends": '{"arguments": {"a": "' + "x" * WHOLE_LIMIT,
}


@pytest.mark.parametrize("form", CALLS)
def test_m3_calls_are_read_from_text(form: str) -> None:
    text, found = CALLS[form]
    assert read(text) == found
    assert read(*text) == found


@pytest.mark.parametrize("form", TEXTS)
def test_m3_what_only_looks_like_a_call_is_text(form: str) -> None:
    text = TEXTS[form]
    assert read(text) == [text]
    assert read(*text) == [text]


def test_m3_arguments_come_as_they_are_written() -> None:
    splitter = CallSplitter(NAMES)
    assert splitter.feed('<tool_call>\n{"name": "f", "arguments"') == []
    assert splitter.feed(': {"a"') == [Opened("f"), Arguments('{"a"')]
    assert splitter.feed(': "x') == [Arguments(': "x')]
    assert splitter.feed('"}}\n') == [Arguments('"}')]
    assert splitter.feed("</tool_call>") == []


def test_text_is_not_held_back_longer_than_it_must_be() -> None:
    splitter = CallSplitter(NAMES)
    assert splitter.feed("a <") == ["a"]
    assert splitter.feed("b `") == [" <b `"]
    assert splitter.feed('\n{"na') == []
    assert splitter.feed("tion") == ['\n{"nation']
    assert not splitter.deciding


def test_long_white_space_is_not_all_a_calls() -> None:
    blanks = " " * (BLANKS + 10)
    assert read(f"a{blanks}{T}") == ["a" + " " * 10, F]
    assert read(*f"a{blanks}{T}") == ["a" + " " * 10, F]
    assert read(blanks) == [blanks]


def test_long_garbage_before_an_end_tag_is_text() -> None:
    garbage = "g" * (GARBAGE + len("</tool_call>"))
    assert read(f"<tool_call>{C}{garbage}") == [F, garbage]
    assert read(*f"<tool_call>{C}{garbage}") == [F, garbage]


MARKS = ["<tool_call>", "</tool_call>", "```", "```json\n", "[", "]", ",", "{", "}", '"', "``", "\\", "<to"]
PARTS = [
    f"```json\n{C}\n",
    f"<tool_call>{C}",
    '{"name": "f"',
    '"arguments": {',
    '{"type": "function", "function": ',
    "\n",
    " ",
    "a",
]
PIECES = st.lists(st.sampled_from([C, W, *MARKS, *PARTS]), max_size=14).map("".join)
CUTS = st.lists(st.integers(0, 400), max_size=8)


@given(text=PIECES, at=CUTS)
def test_m3_calls_do_not_depend_on_the_slices(text: str, at: list[int]) -> None:
    assert read(*cut(text, at)) == read(text) == read(*text)


@given(text=st.text() | st.text(alphabet='{}[]"`\n :,na'), at=CUTS)
def test_m3_text_without_a_call_passes_unchanged(text: str, at: list[int]) -> None:
    assert "".join(piece for piece in read(*cut(text, at)) if isinstance(piece, str)) == text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
PROSE = st.text(alphabet="ab .").map(str.strip)


FORMS: dict[str, Callable[[list[str]], str]] = {
    "tag": lambda objects: "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects),
    "list": lambda objects: f"[{', '.join(objects)}]",
    "fence": lambda objects: "\n".join(f"```json\n{one}\n```" for one in objects),
    "bare": "\n".join,
}


@given(
    around=st.tuples(PROSE, PROSE),
    arguments=st.lists(st.dictionaries(st.text(), values), min_size=1, max_size=3),
    form=st.sampled_from(sorted(FORMS)),
    indent=st.sampled_from([None, 2]),
    at=CUTS,
)
def test_m3_whatever_is_called_is_read(
    around: tuple[str, str], arguments: list[dict[str, Any]], form: str, indent: int | None, *, at: list[int]
) -> None:
    before, after = around
    objects = [json.dumps({"name": "f", "arguments": one}, indent=indent) for one in arguments]
    found = read(*cut(f"{before}\n{FORMS[form](objects)}\n{after}", at))
    calls = [piece for piece in found if not isinstance(piece, str)]
    assert [(name, json.loads(text)) for name, text in calls] == [("f", one) for one in arguments]
    assert [piece for piece in found if isinstance(piece, str)] == [text for text in around if text]


def told(*events: Event, **how: Any) -> list[Event]:
    ids = iter(range(100))
    reader = CallReader(NAMES, lambda: f"call_{next(ids)}", **how)
    return [event for batch in events for event in reader.feed([batch])]


END = Finished("stop")


def test_m3_calls_are_events_and_the_reason_says_so() -> None:
    events = told(Started("m"), ReasoningDelta("so"), TextDelta(f"Wait.\n{T}\n{T}"), END)
    assert events == [
        Started("m"),
        ReasoningDelta("so"),
        TextDelta("Wait."),
        ToolCallDelta(0, "call_0", "f"),
        ToolCallDelta(0, arguments='{"a": 1}'),
        ToolCallDelta(1, "call_1", "f"),
        ToolCallDelta(1, arguments='{"a": 1}'),
        Finished("tool_calls"),
    ]
    assert fold(told(TextDelta("Hello."), END)).reason == "stop"
    assert fold(told(TextDelta(T[:40]), Finished("length"))).reason == "length"


def test_m3_at_most_one_call_where_one_is_wanted() -> None:
    found = fold(told(TextDelta(f"{T}{T} So."), END, single=True))
    assert ([call.name for call in found.tool_calls], found.text, found.reason) == (["f"], "So.", "tool_calls")
    native = [ToolCallDelta(0, "x", "f", "{}"), ToolCallDelta(1, "y", "f", "{}"), ToolCallDelta(1, arguments="z"), END]
    assert told(*native, single=True) == [native[0], Finished("tool_calls")]
    assert FirstCall().feed(native) == [native[0], END]


def test_m3_calls_of_the_backends_own_stand_among_the_others() -> None:
    own = [ToolCallDelta(0, "x", "f"), ToolCallDelta(0, arguments="{}"), ToolCallDelta(1, "y", "f")]
    found = told(TextDelta(T), *own, TextDelta(T), Finished("tool_calls"))
    assert [event.index for event in found if isinstance(event, ToolCallDelta) and event.id] == [0, 1, 2, 3]
    assert ToolCallDelta(1, arguments="{}") in found


def test_a_forced_call_that_is_cut_off_before_it_says_what_it_calls_is_no_text() -> None:
    assert told(TextDelta('{"name": "f"'), Finished("length"), forced=True) == [Finished("length")]
    assert fold(told(TextDelta('{"name": "f"'), END, forced=True)).text == '{"name": "f"'
    assert fold(told(TextDelta("Sorry."), Finished("length"), forced=True)).text == "Sorry."


def test_our_own_stop_string_is_nobodys_business() -> None:
    stopped = Finished("stop", stop_sequence="<tool_response")
    assert told(stopped, stops=("<tool_response",)) == [END]
    assert told(stopped) == [stopped]


def test_m5_probabilities_stay_with_the_text() -> None:
    one, two, three = (TokenLogprob(word, -1.0) for word in ("Hel", "lo", " <"))
    events = told(TextDelta("Hel", (one,)), TextDelta("lo", (two,)), TextDelta(" <", (three,)), END)
    assert fold(events).logprobs == (one, two, three)
    assert events[:2] == [TextDelta("Hel", (one,)), TextDelta("lo", (two,))]
    assert fold(told(TextDelta("", (one,)), END)).logprobs == (one,)
    called = told(TextDelta("<tool_call>", (one,)), TextDelta(C, (two,)), TextDelta("</tool_call>", (three,)), END)
    assert fold(called).logprobs == ()
