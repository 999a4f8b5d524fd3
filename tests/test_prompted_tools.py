"""Requests for models without tools or without a system role: what is told to them instead, and in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from canonical.errors import InvalidRequest, Unsupported
from canonical.forced import force
from canonical.media import Blob
from canonical.messages import Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from canonical.prompted_tools import Prompted, prompted, shown
from canonical.requests import Generate, Origin, Output, Sampling, Tool, ToolChoice
from canonical.roles import told_first, without_system

CITY = Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}')
WEATHER = Tool(name="get_weather", description="Wetter \u2600", parameters=CITY)
TIME = Tool(name="get_time")
ORIGIN = Origin(dialect="openai", body=b'{"messages":[]}', verbatim=True)
PNG = Image(Blob(b"png", "image/png"))
HI = Message("user", (Text("hi"),))


def asked(*messages: Message, **more: Any) -> Generate:
    return Generate(model="m", messages=messages or (HI,), origin=ORIGIN, **more)


def turned(request: Generate, *, holds: bool = False, stops: bool = True) -> Prompted:
    return prompted(request, holds=holds, stops=stops)


def said(request: Generate) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in request.messages]


def test_m3_tools_are_told_in_the_system_prompt() -> None:
    found = turned(asked(Message("system", (Text("Be brief."),)), HI, tools=(WEATHER, TIME)))
    system, user = found.request.messages
    assert user == HI
    before, _, rest = system.text.partition("<tools>\n")
    tools, _, after = rest.partition("\n</tools>\n")
    assert before.startswith("Be brief.\n\nYou can call functions.")
    assert [json.loads(line)["function"] for line in tools.splitlines()] == [
        {"name": "get_weather", "description": "Wetter \u2600", "parameters": json.loads(bytes(CITY))},
        {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
    ]
    assert "\u2600" in tools
    assert '<tool_call>\n{"name": NAME, "arguments": ARGS}\n</tool_call>' in after
    assert (found.names, found.held, found.stops) == ({"get_weather", "get_time"}, False, ("<tool_response",))
    request = found.request
    assert (request.tools, request.tool_choice, request.parallel_tool_calls) == ((), None, None)
    assert request.sampling.stop == ("<tool_response",)
    assert not request.origin.verbatim
    assert request.origin.body == ORIGIN.body


def test_m3_a_choice_is_told_in_words_where_no_form_can_be_held() -> None:
    free = turned(asked(tools=(WEATHER, TIME)))
    must = turned(asked(tools=(WEATHER, TIME), tool_choice=ToolChoice("required")))
    named = turned(asked(tools=(WEATHER, TIME), tool_choice=ToolChoice("named", "get_time"), parallel_tool_calls=False))
    assert "Where no function helps, just answer." in free.request.messages[0].text
    assert "You must call a function now." in must.request.messages[0].text
    assert must.names == {"get_weather", "get_time"}
    assert "get_weather" not in named.request.messages[0].text
    assert "once at most" in named.request.messages[0].text
    assert named.names == {"get_time"}
    assert named.request.output is None


def test_m3_a_choice_is_held_where_a_schema_can_be() -> None:
    found = turned(asked(tools=(WEATHER, TIME), tool_choice=ToolChoice("required")), holds=True)
    assert found.held
    assert found.request.output is not None
    schema = json.loads(bytes(found.request.output.schema or b""))
    assert [call["properties"]["name"]["const"] for call in schema["anyOf"]] == ["get_weather", "get_time"]
    assert "Call one of them." in found.request.messages[0].text
    assert found.request.sampling.stop == ()
    assert turned(asked(tools=(WEATHER,), tool_choice=ToolChoice("auto")), holds=True).request.output is None


def test_m3_tools_that_must_not_be_called_are_not_told() -> None:
    found = turned(asked(tools=(WEATHER,), tool_choice=ToolChoice("none")))
    assert (found.names, said(found.request), found.request.tools) == (frozenset(), [("user", "hi")], ())
    assert found.request.sampling.stop == ()


def test_m3_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tool named 'f'"):
        turned(asked(tools=(WEATHER,), tool_choice=ToolChoice("named", "f")))
    with pytest.raises(InvalidRequest, match="there is none"):
        turned(asked(tool_choice=ToolChoice("required")))
    with pytest.raises(Unsupported, match="no form can hold"):
        turned(asked(tools=(WEATHER,), output=Output("json")))


def test_the_stop_string_is_added_where_there_is_room() -> None:
    tools = (WEATHER,)
    assert turned(asked(tools=tools, sampling=Sampling(stop=("a",)))).request.sampling.stop == ("a", "<tool_response")
    assert turned(asked(tools=tools, sampling=Sampling(stop=("a",) * 4))).stops == ()
    assert turned(asked(tools=tools), stops=False).request.sampling.stop == ()


def test_m3_earlier_calls_and_results_are_told_as_text() -> None:
    """Results stand in one turn of the user's with what the user says next: many templates want turns to alternate."""
    call = Message("assistant", (Text("Wait."), ToolCall("1", "f", '{"a": 1}'), ToolCall("2", "g", "")))
    results = (
        Message("tool", (ToolResult("2", "", "two"),)),
        Message("tool", (ToolResult("1", "f", "one", error=True),)),
    )
    found = turned(asked(HI, call, *results, Message("user", (PNG, Text("And?")))))
    assert said(found.request) == [
        ("user", "hi"),
        (
            "assistant",
            (
                'Wait.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>\n'
                '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
            ),
        ),
        (
            "user",
            (
                '<tool_response name="g">\ntwo\n</tool_response>\n\n'
                '<tool_response name="f">\nError: one\n</tool_response>\n\nAnd?'
            ),
        ),
    ]
    assert [type(part) for part in found.request.messages[-1].parts] == [Text, Image, Text]


def test_m3_one_result_needs_no_name() -> None:
    call = Message("assistant", (Reasoning("so"), ToolCall("1", "f", "{}")))
    both = Message("user", (ToolResult("1", "", "one"), Text("And?")))
    found = turned(asked(HI, call, both, Message("assistant", (Text("ok"),)), HI)).request
    assert said(found) == [
        ("user", "hi"),
        ("assistant", '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'),
        ("user", "<tool_response>\none\n</tool_response>\n\nAnd?"),
        ("assistant", "ok"),
        ("user", "hi"),
    ]
    assert found.messages[1].parts[0] == Reasoning("so")


def test_a_forced_call_for_a_model_that_knows_of_tools_leaves_earlier_turns_alone() -> None:
    call = Message("assistant", (ToolCall("1", "f", "{}"),))
    request = asked(HI, call, tools=(WEATHER, TIME), tool_choice=ToolChoice("named", "get_time"))
    forced = force(request)
    assert forced is not None
    found = shown(request, forced)
    assert found.messages[1:] == (HI, call)
    assert "get_time" in found.messages[0].text
    assert "get_weather" not in found.messages[0].text
    assert (found.tools, found.tool_choice, found.origin.verbatim) == ((), None, False)
    assert found.output == forced.output


def system(text: str) -> Message:
    return Message("system", (Text(text),))


def user(*parts: Part) -> Message:
    return Message("user", parts)


def test_m3_instructions_stand_at_the_head_of_the_first_user_message() -> None:
    found = without_system(asked(system("A."), system("B."), HI, Message("assistant", (Text("ok"),)), HI))
    assert said(found) == [("user", "A.\n\nB.\n\nhi"), ("assistant", "ok"), ("user", "hi")]
    assert len(found.messages[0].parts) == 1
    assert not found.origin.verbatim
    picture = without_system(asked(system("A."), user(PNG, Text("hi"))))
    assert picture.messages[0].parts == (Text("A.\n\n"), PNG, Text("hi"))


def test_m3_later_instructions_become_the_users_where_they_stood() -> None:
    begun = Message("assistant", (Text("ok"),))
    assert said(without_system(asked(HI, begun, system("A."), HI, HI))) == [
        ("user", "hi"),
        ("assistant", "ok"),
        ("user", "A.\n\nhi\n\nhi"),
    ]
    assert said(without_system(asked(HI, system("A."), begun))) == [("user", "hi\n\nA."), ("assistant", "ok")]


def test_m3_instructions_without_a_user_are_a_turn_of_their_own() -> None:
    assert said(without_system(asked(system("A.")))) == [("user", "A.")]
    begun = Message("assistant", (Text("ok"),))
    assert said(without_system(asked(system("A."), begun))) == [("user", "A."), ("assistant", "ok")]
    assert said(without_system(asked(system("A."), begun, HI))) == [("assistant", "ok"), ("user", "A.\n\nhi")]


def test_m3_instructions_behind_a_picture_stay_behind_it() -> None:
    found = without_system(asked(user(PNG), system("A."), Message("assistant", (Text("ok"),))))
    assert found.messages[0].parts == (PNG, Text("A."))


def test_m3_tools_stand_at_the_end_of_the_instructions() -> None:
    assert told_first((), "T") == (system("T"),)
    assert told_first((system("A."), system("B."), HI), "T") == (system("A."), system("B.\n\nT"), HI)
    assert told_first((HI, system("A.")), "T") == (system("T"), HI, system("A."))


def test_a_request_without_instructions_is_the_same() -> None:
    request = asked(HI)
    assert without_system(request) is request


ROLES = st.sampled_from(["system", "user", "assistant"])


@given(st.lists(st.tuples(ROLES, st.text(alphabet="abc", min_size=1)), min_size=1))
def test_m3_nothing_that_was_said_is_lost(turns: Any) -> None:
    messages = tuple(Message(role, (Text(text),)) for role, text in turns)
    found = without_system(asked(*messages))
    assert all(message.role != "system" for message in found.messages)
    told = "".join(message.text for message in found.messages)
    assert sorted(told.replace("\n", "")) == sorted("".join(text for _, text in turns))
    assert without_system(structs.replace(found)) == found
