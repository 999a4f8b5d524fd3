"""Shims in the engine: only where a model's entry says so, told in every report, and in lists; models have a story."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw, structs

from backends.honours import TABLE
from canonical.errors import Unsupported
from canonical.events import Completion, Event, Finished, ReasoningDelta, Started, TextDelta, Usage, fold
from canonical.features import Feature
from canonical.messages import Message, Reasoning, Text, ToolCall, ToolResult
from canonical.models import Capability
from canonical.report import Honours, Report
from canonical.requests import Generate, Origin, Output, Prompt, Tool, ToolChoice, Vocabulary
from gateway.config import ConfigError, settle
from gateway.engine import Engine
from gateway.settings import ModelEntry
from gateway.shims import FIRST, HELD, HIDDEN, INLINE, TOLD, TURNS, WORDS
from tests.houses import Home, settled, tells
from tests.virtual_time import run

CHAT = Capability.CHAT
HI = Message("user", (Text("hi"),))
RULES = Message("system", (Text("Be brief."),))
TOOL = Tool(name="f", parameters=Raw(b"{}"), strict=True)
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
THOUGHT = "<think>\nso\n</think>\n\n15"
WORDS_OF = Vocabulary(names={Feature.THINK_OFF: ("think",)}, own=frozenset({"think"}), talk=frozenset({"tools"}))


def says(*texts: str) -> list[list[Event]]:
    return [[Started("m")], *([TextDelta(text)] for text in texts), [Finished("stop", Usage(3, 2))]]


def home(*texts: str, backend: str = "openai", able: Sequence[Capability] = (CHAT,)) -> Home:
    found = Home(tells(*says(*texts)), slots=4, abilities=able)
    found.model.honours = Honours(TABLE[backend], dialect="openai")
    return found


def asked(*messages: Message, **more: Any) -> Generate:
    return Generate(model="a", messages=messages or (HI,), **more)


def answered(
    house: Home, request: Generate, *, strict: bool = False, **entry: Any
) -> tuple[Completion, Report, Generate]:
    """The answer, the report, and the request as the model got it."""

    async def whole() -> tuple[Completion, Report, Generate]:
        engine = Engine(settled(None, [ModelEntry(id="a", backend="b", name="m", **entry)], b=house))
        reports: list[Report] = []
        events: list[Event] = []
        await engine.models()  # so that the catalog is known
        async for batch in engine.generate(request, strict=strict, tell=reports.append):
            events += batch
        await engine.close()
        return fold(events), reports[0], house.model.requests[0]

    return run(whole())


def test_m4_without_a_shim_nothing_changes() -> None:
    with pytest.raises(Unsupported, match="a does not support tools"):
        answered(home(CALL), asked(tools=(TOOL,)))
    house = home(CALL, THOUGHT)
    request = asked(RULES, HI)
    answer, report, got = answered(house, request)
    assert (answer.text, answer.tool_calls, answer.reasoning) == (CALL + THOUGHT, (), "")
    assert got is request
    assert report.approximated == {}


def test_m4_a_shim_that_has_nothing_to_do_does_nothing() -> None:
    request = asked(HI)
    answer, _, got = answered(home(CALL), request, shims=("system", "tools"))
    assert got is request
    assert answer.text == CALL
    prompt = Generate(model="a", prompt=Prompt(text="x"))
    able = (CHAT, Capability.COMPLETE)
    answer, _, got = answered(home(THOUGHT, able=able), prompt, shims=("system", "tools"), inline_thinking=True)
    assert got is prompt
    assert answer.text == THOUGHT


def test_m3_m4_tools_are_told_in_the_prompt_and_the_report_says_so() -> None:
    request = asked(RULES, HI, tools=(TOOL,), parallel_tool_calls=False)
    answer, report, got = answered(home("Wait.", CALL, CALL), request, shims=("tools",))
    (call,) = answer.tool_calls
    assert (call.name, call.arguments, answer.text, answer.reason) == ("f", '{"a": 1}', "Wait.", "tool_calls")
    assert answer.usage == Usage(3, 2)
    assert got.tools == ()
    assert "<tools>" in got.messages[0].text
    assert report.approximated == {Feature.TOOLS: TOLD.note, Feature.PARALLEL_TOOLS: FIRST.note}
    assert (report.dropped, report.honoured) == ((Feature.TOOL_STRICT,), (Feature.SYSTEM,))
    with pytest.raises(Unsupported, match="and strict is on"):
        answered(home(CALL), request, strict=True, shims=("tools",))


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice("named", "f")])
def test_m3_a_forced_call_is_held_where_the_backend_can_and_told_where_not(choice: ToolChoice) -> None:
    field = Feature.TOOL_REQUIRED if choice.mode == "required" else Feature.TOOL_NAMED
    held = '{"name": "f", "arguments": {"a": 1}}'
    request = asked(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=False)
    answer, report, got = answered(home(held), request, shims=("tools",))
    assert [call.arguments for call in answer.tool_calls] == ['{"a": 1}']
    assert got.output is not None
    assert report.approximated == {Feature.TOOLS: TOLD.note, field: HELD.note}
    assert report.honoured == (Feature.TOOL_STRICT, Feature.PARALLEL_TOOLS)
    answer, report, got = answered(home("I will.", CALL, backend="echo"), request, shims=("tools",))
    assert [call.arguments for call in answer.tool_calls] == ['{"a": 1}']
    assert got.output is None
    assert report.approximated == {
        Feature.TOOLS: TOLD.note, field: WORDS.note, Feature.PARALLEL_TOOLS: FIRST.note,
    }  # fmt: skip


def test_m3_tools_that_must_not_be_called_are_not_told() -> None:
    request = asked(tools=(TOOL,), tool_choice=ToolChoice("none"))
    answer, report, got = answered(home(CALL), request, shims=("tools",))
    assert (answer.text, answer.tool_calls) == (CALL, ())
    assert (got.messages, got.tools) == ((HI,), ())
    assert (report.approximated, report.dropped) == ({}, ())


def test_m3_earlier_calls_are_told_although_there_are_no_tools_any_more() -> None:
    turns = (HI, Message("assistant", (ToolCall("1", "f", "{}"),)), Message("tool", (ToolResult("1", "f", "ok"),)))
    answer, report, got = answered(home("done"), asked(*turns), shims=("tools",))
    assert answer.text == "done"
    assert report.approximated == {"messages": TURNS.note}
    origin = Origin(vocabulary=Vocabulary(known=frozenset({"input"})))
    assert answered(home("done"), asked(*turns, origin=origin), shims=("tools",))[1].approximated == {
        "input": TURNS.note
    }
    assert [message.role for message in got.messages] == ["user", "assistant", "user"]
    assert got.messages[2].text == "<tool_response>\nok\n</tool_response>"


def test_m4_a_form_of_the_answer_beside_prompted_tools_is_refused() -> None:
    with pytest.raises(Unsupported, match="no form can hold") as caught:
        answered(home(CALL), asked(tools=(TOOL,), output=Output("json")), shims=("tools",))
    assert caught.value.param == "response_format"


def test_m3_m4_instructions_stand_in_the_users_turn_and_the_report_says_so() -> None:
    later = Message("system", (Text("Be kind."),))
    _, report, got = answered(home("ok"), asked(RULES, HI, later), shims=("system",))
    assert [(message.role, message.text) for message in got.messages] == [("user", "Be brief.\n\nhi\n\nBe kind.")]
    assert set(report.approximated) == {Feature.SYSTEM, Feature.SYSTEM_LATER}
    _, report, got = answered(home("ok"), asked(HI, tools=(TOOL,)), shims=("tools", "system"))
    assert [message.role for message in got.messages] == ["user"]
    assert got.messages[0].text.endswith("\n\nhi")


def test_m4_what_is_changed_does_not_travel_in_the_clients_own_words() -> None:
    body = b'{"messages":[],"tools":[{}],"think":false}'
    origin = Origin(dialect="openai", body=body, vocabulary=WORDS_OF, verbatim=True)
    request = asked(tools=(TOOL,), think="off", origin=origin)
    _, report, got = answered(home(CALL), request, shims=("tools",), inline_thinking=True)
    assert not got.origin.verbatim
    assert report.approximated == {Feature.TOOLS: TOLD.note, "think": HIDDEN.note}


@pytest.mark.parametrize(
    ("inline", "text"),
    [
        (True, THOUGHT),
        ("opened", "so</think>15"),
        (("[THINK]", "[/THINK]"), "[THINK]so[/THINK]15"),
        (("", "|"), "so|15"),
    ],
)
def test_m3_thoughts_in_the_text_are_told_apart(inline: Any, text: str) -> None:
    answer, _, _ = answered(home(*text), asked(), inline_thinking=inline)
    assert (answer.reasoning, answer.text) == ("so", "15")
    answer, _, _ = answered(home(text), asked(think="off"), inline_thinking=inline)
    assert (answer.reasoning, answer.text) == ("", "15")


def test_m3_m4_what_becomes_of_thoughts_is_in_the_report() -> None:
    turn = Message("assistant", (Reasoning("so"), Text("yes")))
    thinks = home(THOUGHT, able=(CHAT, Capability.REASONING))
    _, report, got = answered(thinks, asked(HI, turn, HI, think="off"), inline_thinking=True)
    assert got.messages[1].text == "<think>\nso\n</think>\n\nyes"
    assert report.approximated == {Feature.THOUGHTS: INLINE.note, Feature.THINK_OFF: HIDDEN.note}
    assert got.think == "off"  # this backend knows the word


def test_m4_clients_of_anthropics_dialect_get_no_thoughts_unasked() -> None:
    origin = Origin(dialect="anthropic")
    answer, _, _ = answered(home(THOUGHT), asked(origin=origin), inline_thinking=True)
    assert (answer.reasoning, answer.text) == ("", "15")
    answer, _, _ = answered(home(THOUGHT), asked(origin=origin, think="on"), inline_thinking=True)
    assert (answer.reasoning, answer.text) == ("so", "15")


def test_m4_a_wish_to_think_is_not_sent_to_a_backend_that_would_refuse_it() -> None:
    """A model that is known not to think, by what its server says, and yet writes thoughts: it thinks in any case."""
    request = asked(think="on", origin=Origin(dialect="ollama"))
    with pytest.raises(Unsupported, match="does not support thinking"):
        answered(home(THOUGHT), request)
    answer, report, got = answered(home(THOUGHT), request, inline_thinking=True)
    assert (answer.reasoning, got.think, report.honoured) == ("so", None, (Feature.THINK_ON,))
    _, report, got = answered(home(THOUGHT), structs.replace(request, think="high"), inline_thinking=True)
    assert (got.think, report.dropped) == (None, (Feature.THINK_LEVEL,))
    thinks = home(THOUGHT, able=(CHAT, Capability.REASONING))
    assert answered(thinks, request, inline_thinking=True)[2].think == "on"


def test_m3_thoughts_and_calls_in_one_text() -> None:
    answer, _, got = answered(
        home(*f"<think>\nI call.\n</think>\n\n{CALL}"), asked(tools=(TOOL,)), shims=("tools",), inline_thinking=True
    )
    assert (answer.reasoning, answer.text) == ("I call.", "")
    assert [call.name for call in answer.tool_calls] == ["f"]
    assert got.tools == ()


def test_m4_lists_say_what_clients_may_use() -> None:
    async def whole() -> None:
        entries = [
            ModelEntry(id="plain", backend="b", name="m"),
            ModelEntry(id="tools", backend="b", name="m", shims=("tools", "system")),
            ModelEntry(id="thinks", backend="b", name="m", inline_thinking=True),
            ModelEntry(id="unknown", backend="c", name="m", shims=("tools",)),
            ModelEntry(id="vectors", backend="d", name="m", shims=("tools",)),
        ]
        vectors = home(able=(Capability.EMBED,))
        engine = Engine(settled(None, entries, b=home("x"), c=home("x", able=()), d=vectors))
        found = {info.id: info.capabilities for info in await engine.models()}
        assert found["plain"] == {CHAT}
        assert found["tools"] == {CHAT, Capability.TOOLS}
        assert found["thinks"] == {CHAT, Capability.REASONING}
        assert found["unknown"] == frozenset()
        assert found["vectors"] == {Capability.EMBED}
        for id, capabilities in found.items():
            assert (await engine.details(id)).info.capabilities == capabilities
        await engine.close()

    run(whole())


def test_m4_a_client_that_leaves_stops_the_model_behind_a_shim() -> None:
    async def whole() -> None:
        house = home("a", CALL)
        engine = Engine(settled(None, [ModelEntry(id="a", backend="b", name="m", shims=("tools",))], b=house))
        stream: AsyncGenerator[Sequence[Event], None] = engine.generate(asked(tools=(TOOL,)))
        await anext(stream)
        await stream.aclose()
        assert (house.model.stopped, house.model.finished) == (1, 0)
        await engine.close()

    run(whole())


def test_m4_a_fallback_has_shims_of_its_own() -> None:
    async def whole() -> None:
        entries = [
            ModelEntry(id="a", backend="b", name="m", fallbacks=("spare",)),
            ModelEntry(id="spare", backend="c", name="m", shims=("tools",)),
        ]
        engine = Engine(settled(None, entries, b=home("no"), c=home(CALL)))
        await engine.models()
        events = [event async for batch in engine.generate(asked(tools=(TOOL,))) for event in batch]
        assert [call.name for call in fold(events).tool_calls] == ["f"]
        assert not any(isinstance(event, ReasoningDelta) for event in events)
        await engine.close()

    run(whole())


def test_tags_of_thoughts_come_from_the_configuration() -> None:
    def entry(inline: Any) -> Any:
        model = {"id": "a", "backend": "b", "name": "echo", "inline_thinking": inline}
        return settle({"backends": {"b": {"type": "echo"}}, "models": [model]}, base=Path(), environ={}).models[0]

    assert entry(True).inline_thinking is True
    assert entry("opened").inline_thinking == "opened"
    assert entry(["[THINK]", "[/THINK]"]).inline_thinking == ("[THINK]", "[/THINK]")
    assert entry(["", "</x>"]).inline_thinking == ("", "</x>")
    with pytest.raises(ConfigError, match=r"a tag that ends it - at `\$.models\[0\].inline_thinking`"):
        entry(["<x>", " "])
    for wrong in ("closed", ["<x>"], 1.5):
        with pytest.raises(ConfigError, match="inline_thinking"):
            entry(wrong)
