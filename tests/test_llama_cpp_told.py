"""What a model inside tells beside its text, and how far it is held: budgets, counts, stop strings, calls, forms."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from backends.llama_cpp import answer as writing
from backends.llama_cpp.engine import Start
from backends.llama_cpp.model import TextModel
from canonical.either import EitherCall, allow_calls
from canonical.errors import Unsupported
from canonical.events import Check, Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta, fold
from canonical.requests import Generate, Origin, Output, Tool, ToolChoice
from tests.test_llama_cpp import COMPILED, PERSON, ROOT, WEATHER, answer, ask, every_engine, on, told

SUM = "What is 7 + 8?"
RAIN = "What is the weather in Paris?"
ANNA = "Give me JSON with name Anna, age 30, city Paris."
CALL = 1018
"""The token that begins a call."""


def extras(**fields: Any) -> Origin:
    return Origin("openai", json.dumps(fields).encode())


# Thoughts


@every_engine
def test_m3_a_budget_of_thoughts_is_held_to_the_token(engine: dict[str, Any]) -> None:
    whole, *cut = told(engine, ask(SUM, think="on"), *(ask(SUM, think_budget=size) for size in (2, 5, 8, 500)))
    assert whole.usage is not None
    for size, found in zip((2, 5, 8), cut, strict=False):
        assert found.usage is not None
        assert whole.reasoning.startswith(found.reasoning)
        assert found.reasoning != whole.reasoning
        assert found.usage.reasoning == size - 1  # the line break behind the tag is one of the budget's
        assert found.text
    assert (cut[-1].reasoning, cut[-1].text) == (whole.reasoning, whole.text)


@every_engine
def test_a_budget_beyond_the_engines_numbers_is_none(engine: dict[str, Any]) -> None:
    """They would begin anew: a budget of 2**63 meant no thoughts at all."""
    whole, *found = told(engine, ask(SUM, think="on"), *(ask(SUM, think_budget=size) for size in (2**31, 2**63)))
    assert whole.reasoning
    assert [(one.reasoning, one.text) for one in found] == [(whole.reasoning, whole.text)] * 2


@every_engine
def test_m3_no_budget_at_all_means_no_thoughts(engine: dict[str, Any]) -> None:
    (found,) = told(engine, ask(SUM, think="low", think_budget=0))
    assert (found.reasoning, found.text) == ("", "7 + 8 = 15")


@every_engine
def test_m4_tokens_of_thoughts_are_counted(engine: dict[str, Any]) -> None:
    thought, silent, cut = told(
        engine, ask(SUM, think="on"), ask(SUM), ask(SUM, think="on", sampling={"max_tokens": 5})
    )
    for found, count in ((thought, 10), (silent, 0), (cut, 3)):
        assert found.usage is not None
        assert found.usage.reasoning == count
    assert thought.usage is not None
    assert thought.usage.completion > 10
    assert (cut.reason, cut.text) == ("length", "")


@COMPILED
def test_m4_the_count_is_the_tokenizers() -> None:
    from backends.llama_cpp.llama_cpp_python import LlamaCppPython

    tokenizer = LlamaCppPython(Start(path=str(ROOT / "models" / "pip.gguf"), context=64))
    questions = (SUM, "What is the capital of France?", "Count to 5")
    for found in told({"engine": "xllamacpp"}, *(ask(question, think="on") for question in questions)):
        assert found.usage is not None
        # A full stop and the line break behind it are one token, so both ways end at the same place.
        assert found.usage.reasoning == len(tokenizer.vocabulary.tokens([found.reasoning], special=False))
    tokenizer.close()


@every_engine
def test_m4_log_probabilities_are_those_of_the_answer(engine: dict[str, Any]) -> None:
    (found,) = told(engine, ask(SUM, think="on", top_logprobs=1))
    assert found.reasoning
    assert "".join(token.token for token in found.logprobs) == found.text == "7 + 8 = 15"


@given(st.integers(0, 6), st.integers(0, 8), st.booleans())
def test_a_budget_ends_a_thought_once(limit: int, thoughts: int, opened: bool) -> None:
    """The second engine's own: tokens are drawn until the budget says to end, then the tag is written."""
    writer = writing.Writer("chat", thinks=opened, calls=False, new_id=str)
    budget = writing.Budget(limit)
    script = [*([] if opened else ["<think>"]), *["x"] * thoughts, "</think>", "y"]
    drawn, ends, count = iter(script), 0, 0
    while True:
        count += 1
        if budget.spent(writer):
            ends += 1
            writer.feed("</think>", [])
            break
        token = next(drawn)
        writer.feed(token, [])
        budget.count(writer, count)
        if token == "y":
            break
    assert ends == (limit <= thoughts)
    assert budget.told == min(limit, thoughts)


# Stop strings


@every_engine
def test_m3_the_stop_string_that_was_found_is_named(engine: dict[str, Any]) -> None:
    stop = {"stop": ("zebra", ", 4", ", 7")}
    found, other, none = told(
        engine, ask("Count to 9", sampling=stop), ask("Count to 3", sampling=stop), ask("Count to 9")
    )
    assert (found.text, found.stop_sequence, found.reason) == ("1, 2, 3", ", 4", "stop")
    assert (other.stop_sequence, none.stop_sequence) == (None, None)
    assert found.usage is not None


@every_engine
def test_m3_text_that_looks_like_the_engines_notes_is_text(engine: dict[str, Any]) -> None:
    words = '"stopping_word":"x","predicted_n":9'
    (found,) = told(engine, ask(f"Repeat: {words}", sampling={"stop": ("zebra",), "max_tokens": 30}))
    assert found.stop_sequence is None
    assert found.usage is not None
    assert found.usage.reasoning == 0


# Calls


@every_engine
def test_m3_several_calls_come_unless_one_is_wanted(engine: dict[str, Any]) -> None:
    """The demo model calls once; pushed to the token that begins a call, it goes on calling."""
    pushed = {"logit_bias": {str(CALL): 12.0}, "max_tokens": 60}
    long = {**pushed, "max_tokens": 2000}  # 60 are done before a busy machine has stopped it
    several, one = told(
        engine,
        ask(RAIN, tools=(WEATHER,), sampling=pushed, origin=extras(ignore_eos=True)),
        ask(RAIN, tools=(WEATHER,), sampling=long, origin=extras(ignore_eos=True), parallel_tool_calls=False),
    )
    assert len(several.tool_calls) > 1
    assert len({call.id for call in several.tool_calls}) == len(several.tool_calls)
    (call,) = one.tool_calls
    assert msgspec.json.decode(call.arguments) == {"city": "Paris"}
    assert one.reason == "tool_calls"
    assert one.usage is not None
    assert 20 <= one.usage.completion < 2000
    assert one.usage.prompt > 90


@every_engine
def test_m3_calls_come_in_fragments_where_the_engine_has_them(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        events = [event async for batch in model.generate(ask(RAIN, tools=(WEATHER,))) for event in batch]
        pieces = [event for event in events if isinstance(event, ToolCallDelta)]
        assert "".join(piece.arguments for piece in pieces) == '{"city": "Paris"}'
        # The second engine tells a call when it is whole.
        assert (len(pieces) > 3) == (engine["engine"] == "xllamacpp")

    on(engine, story)


def test_m3_arguments_keep_to_the_schema_of_the_tool() -> None:
    parameters = Raw(b'{"type":"object","properties":{"city":{"type":"string","enum":["Rome"]}},"required":["city"]}')
    tool = Tool(name="get_weather", parameters=parameters, strict=True)
    (found,) = told({"engine": "xllamacpp"}, ask(RAIN, tools=(tool,)))
    assert msgspec.json.decode(found.tool_calls[0].arguments) == {"city": "Rome"}


@every_engine
@pytest.mark.parametrize("name", ["get_time", "zap", "list_files"])
def test_m3_a_forced_call_comes_at_once_though_the_model_would_begin_with_a_thought(
    engine: dict[str, Any], name: str
) -> None:
    forced = ask(f"Call {name}.", tools=(Tool(name=name),), tool_choice=ToolChoice("required"), think="off")
    (found,) = told(engine, forced)
    assert [(call.name, json.loads(call.arguments)) for call in found.tool_calls] == [(name, {})]
    assert found.reasoning == ""


@every_engine
def test_m3_strings_of_a_form_are_json(engine: dict[str, Any]) -> None:
    # Held to a string, this model would answer with a line break in it.
    form = Output("schema", schema=Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}'))
    for prompt in ("Call get_time.", "Call run with x 3.", "Repeat: a\nb\nc"):
        (found,) = told(engine, ask(prompt, output=form, think="off"))
        assert found.reason == "length" or json.loads(found.text)


@every_engine
def test_m3_log_probabilities_beside_tools_come_or_are_refused(engine: dict[str, Any]) -> None:
    request = ask("Hello!", tools=(WEATHER,), top_logprobs=1)

    async def story(model: TextModel) -> None:
        if engine["engine"] == "xllamacpp":
            with pytest.raises(Unsupported) as caught:
                await answer(model, request)
            assert caught.value.param == "logprobs"
            request_none = msgspec.structs.replace(request, tool_choice=ToolChoice("none"))
            assert (await answer(model, request_none)).logprobs
        else:
            found = await answer(model, request)
            assert "".join(token.token for token in found.logprobs) == found.text

    on(engine, story)


# A form beside tools

BOTH = [Output("json"), Output("schema", Raw(PERSON))]


@pytest.mark.parametrize("output", BOTH, ids=["json", "schema"])
def test_m3_a_model_held_to_a_form_can_still_call(output: Output) -> None:
    call, plain, thought = told(
        {"engine": "xllamacpp"},
        ask(RAIN, tools=(WEATHER,), output=output),
        ask(ANNA, tools=(WEATHER,), output=output),
        ask("Repeat: alpha", tools=(WEATHER,), output=output),
    )
    assert (call.text, call.reason) == ("", "tool_calls")
    assert [(one.name, json.loads(one.arguments)) for one in call.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert (plain.tool_calls, plain.reason) == ((), "stop")
    assert set(json.loads(plain.text)) == {"name", "age", "city"}
    assert json.loads(thought.text) if thought.text else thought.tool_calls


@every_engine
def test_m3_a_form_beside_tools_is_held_on_every_engine(engine: dict[str, Any]) -> None:
    (found,) = told(engine, ask(ANNA, tools=(WEATHER,), output=BOTH[1]))
    assert set(json.loads(found.text)) == {"name", "age", "city"}


@every_engine
def test_m3_constants_of_any_characters_are_written_as_json(engine: dict[str, Any]) -> None:
    texts = ['a "b" c', "a\\nb", "a\nb\tc\x01", "café ☃ 😀", "\\", "\x7f"]
    schemas = [{"properties": {text: {"const": text}}, "required": [text]} for text in texts]
    schemas.append({"properties": {"a": {"enum": [texts[2]]}}, "required": ["a"]})
    outputs = [Output("schema", Raw(json.dumps({"type": "object", **schema}).encode())) for schema in schemas]
    found = told(engine, *(ask("Hello!", output=output) for output in outputs))
    expected = [*({text: text} for text in texts), {"a": texts[2]}]
    assert [json.loads(one.text) for one in found] == expected


SCHEMA = Output("schema", Raw(PERSON))
FREE = Output("json")
TEXTS = [
    ('{"name": "get_weather", "arguments": {"city": "Paris"}}', SCHEMA, True),
    ('{ "name" : "get_weather" , "arguments" : {"city":"Paris"}\n}', SCHEMA, True),
    ('{"name": "get_weather", "age": 3, "city": "x"}', SCHEMA, False),
    ('{"name": "other", "arguments": {}}', SCHEMA, False),
    ("", SCHEMA, False),
    ('{"name": "get_weather", "arguments": {"city": "Paris"}}', FREE, True),
    ('{"name": "get_weather", "arguments": {"city": "Paris"}, "more": 1}', FREE, False),
    ('{"name": "get_weather", "arguments": [1]}', FREE, False),
    ('{"name": "get_weather", "arg', FREE, False),
]


@pytest.mark.parametrize(("text", "output", "called"), TEXTS)
@given(cuts=st.lists(st.integers(0, 70), max_size=6))
def test_m3_a_call_or_the_answer_wherever_the_text_is_cut(
    text: str, output: Output, called: bool, cuts: list[int]
) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    request = Generate(model="m", tools=(WEATHER,), output=output)
    reader, check = EitherCall(request, lambda: "call_1"), Check()
    events: list[Event] = [msgspec.convert({"type": "Started", "model": "m"}, Event), ReasoningDelta("hm")]
    events += [TextDelta(piece) for piece in pieces]
    found: list[Event] = []
    for event in [*events, Finished("stop")]:
        found += reader.feed([event])
    for event in found:
        check.feed(event)
    check.finish()
    completion = fold(found)
    assert completion.reasoning == "hm"
    if called:
        assert (completion.text, completion.reason) == ("", "tool_calls")
        assert json.loads(completion.tool_calls[0].arguments) == {"city": "Paris"}
    else:
        assert (completion.text, completion.tool_calls, completion.reason) == (text, (), "stop")


def test_only_a_form_beside_free_tools_is_widened() -> None:
    plain = Generate(model="m", tools=(WEATHER,), output=SCHEMA)
    assert allow_calls(plain) is not None
    for changes in ({"output": None}, {"tools": ()}, {"tool_choice": ToolChoice("required")}):
        assert allow_calls(msgspec.structs.replace(plain, **changes)) is None
    own = Output("schema", Raw(b'{"type":"object","properties":{"a":{"$ref":"#"}}}'))
    with pytest.raises(Unsupported):
        allow_calls(msgspec.structs.replace(plain, output=own))


def test_definitions_of_both_meet_at_the_root() -> None:
    schema = Raw(b'{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"type":"string"}}}')
    widened = allow_calls(Generate(model="m", tools=(WEATHER,), output=Output("schema", schema)))
    assert widened is not None
    assert widened.output is not None
    assert json.loads(bytes(widened.output.schema or b""))["$defs"] == {"A": {"type": "string"}}
    other = Tool(name="t", parameters=Raw(bytes(schema).replace(b'"string"', b'"integer"')))
    with pytest.raises(Unsupported):
        allow_calls(Generate(model="m", tools=(other,), output=Output("schema", schema)))


def test_stopping_for_one_call_leaves_the_slot_free() -> None:
    async def story(model: TextModel) -> None:
        pushed = {"logit_bias": {str(CALL): 12.0}, "max_tokens": 4000}
        request = ask(
            RAIN, tools=(WEATHER,), sampling=pushed, origin=extras(ignore_eos=True), parallel_tool_calls=False
        )
        async with asyncio.timeout(20):
            for _ in range(8):  # twice the slots
                assert len((await answer(model, request)).tool_calls) == 1

    on({"engine": "xllamacpp"}, story)
