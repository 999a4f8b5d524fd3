"""A forced tool call: the schema it holds the answer to, and the call that is told of the answer's text."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from canonical.errors import InvalidRequest, Unsupported
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, fold
from canonical.forced import ForcedCall, force
from canonical.requests import Generate, Output, Tool, ToolChoice

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def tool(name: str, **schema: Any) -> Tool:
    return Tool(name=name, parameters=Raw(json.dumps(schema).encode()) if schema else None)


def asked(*tools: Tool, choice: ToolChoice | None, **more: Any) -> Generate:
    return Generate(model="m", messages=(), tools=tools, tool_choice=choice, **more)


def schema_of(request: Generate) -> Any:
    found = force(request)
    assert found is not None
    assert found.output is not None
    return json.loads(bytes(found.output.schema or b""))


def told(text: str, cuts: list[int], reason: Any = "stop") -> Any:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    call = ForcedCall(lambda: "call_1")
    events: list[Event] = []
    for event in (Started("m"), ReasoningDelta("so"), *map(TextDelta, pieces), Finished(reason)):
        events += call.feed([event])
    return fold(events)


@given(
    st.text(min_size=1), st.dictionaries(st.text(), values), st.lists(st.integers(0, 200)), st.sampled_from([None, 1])
)
def test_m3_text_cut_anywhere_is_the_call(name: str, arguments: Any, cuts: list[int], indent: int | None) -> None:
    text = json.dumps({"name": name, "arguments": arguments}, indent=indent)
    found = told(text, cuts)
    (call,) = found.tool_calls
    assert (call.id, call.name, json.loads(call.arguments)) == ("call_1", name, arguments)
    assert (found.text, found.reasoning, found.reason) == ("", "so", "tool_calls")


@given(st.integers(0, 80), st.lists(st.integers(0, 80)))
def test_m3_an_answer_cut_off_is_the_beginning_of_the_call(length: int, cuts: list[int]) -> None:
    whole = '{"name": "f", "arguments": {"a": {"b": "}"}, "c": [1, 2]}}'
    found = told(whole[:length], cuts, "length")
    assert found.reason == "length"
    assert '{"a": {"b": "}"}, "c": [1, 2]}'.startswith("".join(call.arguments for call in found.tool_calls))
    if length >= len(whole) - 1:
        assert json.loads(found.tool_calls[0].arguments) == {"a": {"b": "}"}, "c": [1, 2]}


def test_m3_the_schema_of_one_tool_and_of_several() -> None:
    """References look from the root, so what they mean moves there."""
    meaning = {"X": {"type": "string"}}
    one = tool("one", properties={"x": {"$ref": "#/$defs/X"}}, **{"$defs": meaning})
    named = schema_of(asked(one, tool("two"), choice=ToolChoice("named", "one")))
    assert named["properties"]["name"] == {"const": "one"}
    assert named["properties"]["arguments"] == {"type": "object", "properties": {"x": {"$ref": "#/$defs/X"}}}
    assert named["$defs"] == meaning
    several = schema_of(asked(one, tool("two"), choice=ToolChoice("required")))
    assert [call["properties"]["name"]["const"] for call in several["anyOf"]] == ["one", "two"]
    assert several["$defs"] == meaning


def test_m3_a_model_that_may_choose_is_not_forced() -> None:
    for choice in (None, ToolChoice("auto"), ToolChoice("none")):
        assert force(asked(tool("one"), choice=choice)) is None


def test_m3_what_cannot_be_forced_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tool named 'other'"):
        force(asked(tool("one"), choice=ToolChoice("named", "other")))
    with pytest.raises(Unsupported, match="only one of"):
        force(asked(tool("one"), choice=ToolChoice("required"), output=Output("json")))
    clash = [tool(name, **{"$defs": {"X": {"type": kind}}}) for name, kind in (("a", "string"), ("b", "number"))]
    with pytest.raises(Unsupported, match="define 'X' differently"):
        force(asked(*clash, choice=ToolChoice("required")))
