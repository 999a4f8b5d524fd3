"""What a model inside makes of a request depends on its template and its engine; it is found out, and never silent.

The demo model's file is given other templates here: the answers are nonsense then, the prompts are what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.facts import Facts
from backends.llama_cpp.gguf import read_head
from backends.llama_cpp.model import TextModel
from canonical.errors import InvalidRequest, Unsupported
from canonical.features import Feature
from canonical.messages import Message, Reasoning, Text, ToolCall, ToolResult
from canonical.report import DROPPED, HONOURED, REFUSED, report
from canonical.requests import Generate, LoadOptions, Prompt, Tool, ToolChoice
from tests.test_llama_cpp import ENGINES, ROOT, answer, ask, every_engine, on

PIP = ROOT / "models" / "pip.gguf"
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
EACH = "{% for m in messages %}" + TURN + "{% endfor %}" + END
TEMPLATES = {
    "any role": EACH,
    "no instructions": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + EACH,
    "leaves them out": "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + END,
    "only at the head": "{% for m in messages %}{% if loop.first or m['role'] != 'system' %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + END,
    "names": "{% for m in messages %}{{ m['name'] or '' }}" + TURN + "{% endfor %}" + END,
}
FACTS = {
    "any role": Facts(thoughts=False, thoughts_since=False),
    "no instructions": Facts(system=False, thoughts=False, thoughts_since=False),
    "leaves them out": Facts(system=False, system_later=False, thoughts=False, thoughts_since=False),
    "only at the head": Facts(system_later=False, thoughts=False, thoughts_since=False),
    "names": Facts(names=True, thoughts=False, thoughts_since=False),
}


def with_template(folder: Path, template: str) -> Path:
    """A folder with the demo model under another template, padded to the length of its own: offsets stay right."""
    old = read_head(PIP).template.encode()
    new = template.encode()
    room = len(old) - len(new) - 4
    assert room >= 0
    data = PIP.read_bytes()
    assert data.count(old) == 1
    (folder / "pip.gguf").write_bytes(data.replace(old, new + b"{#" + b" " * room + b"#}"))
    return folder


def told(engine: dict[str, Any], folder: Path, story: Callable[[TextModel], Awaitable[Any]], **settings: Any) -> Any:
    async def main() -> Any:
        given = {"threads": 1, "models_dir": str(folder), **engine}
        backend = LlamaCppBackend("local", msgspec.convert(given, LlamaCppBackend.Settings), folder)
        backend.configure("pip", msgspec.convert(settings, LlamaCppBackend.ModelSettings))
        model = await backend.open("pip")
        assert isinstance(model, TextModel)
        try:
            return await story(model)
        finally:
            await model.close()

    return asyncio.run(main())


def talk(*turns: tuple[str, str]) -> Generate:
    return ask(messages=tuple(Message(role, (Text(text),)) for role, text in turns))  # type: ignore[arg-type]


@every_engine
@pytest.mark.parametrize("name", TEMPLATES)
def test_m3_what_a_template_has_a_place_for_is_found_out(tmp_path: Path, engine: dict[str, Any], name: str) -> None:
    async def story(model: TextModel) -> None:
        assert model.facts == FACTS[name]
        verdicts = model.honours.verdicts
        assert (verdicts[Feature.SYSTEM].fate == "honoured") == model.facts.system
        assert (verdicts[Feature.SYSTEM_LATER].fate == "honoured") == model.facts.system_later
        assert (verdicts[Feature.MESSAGE_NAME] == HONOURED) == model.facts.names

    told(engine, with_template(tmp_path, TEMPLATES[name]), story)


@every_engine
@pytest.mark.parametrize("name", TEMPLATES)
def test_m3_instructions_reach_the_model_whatever_its_template(
    tmp_path: Path, engine: dict[str, Any], name: str
) -> None:
    """By count: with instructions of some length, a prompt has more tokens than it has without."""
    words = "speak of mountains and rivers only"

    async def story(model: TextModel) -> None:
        alone = await model.count(talk(("system", words)))
        plain = await model.count(talk(("user", "Hello!")))
        first = await model.count(talk(("system", words), ("system", words), ("user", "Hello!")))
        long = await model.count(talk(("user", "Hello!"), ("assistant", "Hi."), ("user", "Go on.")))
        later = await model.count(talk(("user", "Hello!"), ("assistant", "Hi."), ("system", words), ("user", "Go on.")))
        assert alone > 10
        assert first > plain + 20
        assert later > long + 10

    told(engine, with_template(tmp_path, TEMPLATES[name]), story)


@every_engine
def test_m3_the_demo_model_has_a_place_for_nearly_everything(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        assert model.facts == Facts()
        verdicts = model.honours.verdicts
        python = engine["engine"] != "xllamacpp"
        for feature in (Feature.SYSTEM, Feature.SYSTEM_LATER, Feature.THOUGHTS, Feature.THINK_OFF, Feature.THINK_ON):
            assert verdicts[feature] == HONOURED
        assert verdicts[Feature.THINK_BUDGET] == HONOURED
        assert verdicts[Feature.THINK_LEVEL].fate == "approximated"
        assert verdicts[Feature.MESSAGE_NAME] == DROPPED
        assert verdicts[Feature.IMAGE] == (REFUSED if python else HONOURED)
        assert verdicts[Feature.SUFFIX] == REFUSED
        assert "cache_prompt" in model.honours.extras["openai"]

    on(engine, story)


@every_engine
def test_m3_a_model_that_cannot_think_ignores_the_wish_and_says_so(tmp_path: Path, engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        request = ask("Hello!", think="high", think_budget=100, sampling={"max_tokens": 4})
        assert (await answer(model, request)).usage is not None
        for feature in (Feature.THINK_ON, Feature.THINK_LEVEL, Feature.THINK_BUDGET, Feature.THOUGHTS):
            assert model.honours.verdicts[feature] == DROPPED
        assert report(request, model.honours).dropped == ("think_budget",)

    told(engine, with_template(tmp_path, EACH), story)


@every_engine
def test_m3_calls_are_never_left_out_without_a_word(tmp_path: Path, engine: dict[str, Any]) -> None:
    """A template without tools shows neither a call nor what came of it."""
    call, result = ToolCall("call_1", "look", "{}"), ToolResult("call_1", "look", "snow")
    before = (Message("user", (Text("Look!"),)), Message("assistant", (call,)), Message("tool", (result,)))

    async def story(model: TextModel) -> None:
        with pytest.raises(Unsupported):
            await answer(model, ask(messages=before))
        assert model.honours.verdicts[Feature.TOOLS] == REFUSED
        assert model.honours.verdicts[Feature.TOOL_NONE] == HONOURED

    told(engine, with_template(tmp_path, EACH), story)


@every_engine
def test_m3_thoughts_shown_only_since_the_last_question_are_said_to_be(tmp_path: Path, engine: dict[str, Any]) -> None:
    """As Qwen's templates do it."""
    thought = "{% if m['reasoning_content'] and loop.last %}{{ m['reasoning_content'] }}{% endif %}"
    tools = "{% if tools %}{{ tools[0]['function']['name'] }}{% endif %}"
    shown = thought.replace("loop.last", "messages[-1]['role'] == 'tool'")
    templates = {shown: (False, True, "approximated"), thought: (False, False, "dropped")}
    for template, (always, since, fate) in templates.items():

        async def story(model: TextModel, always: bool = always, since: bool = since, fate: str = fate) -> None:
            assert (model.facts.thoughts, model.facts.thoughts_since) == (always, since)
            assert model.honours.verdicts[Feature.THOUGHTS].fate == fate

        body = "{% for m in messages %}" + template + TURN + "{% endfor %}"
        told(engine, with_template(tmp_path, tools + body + END), story)


@every_engine
def test_m3_who_always_thinks_is_cut_short_where_no_thoughts_are_wanted(tmp_path: Path, engine: dict[str, Any]) -> None:
    """The demo model's own template, with the switch stuck: no request can turn it off."""
    stuck = read_head(PIP).template.replace("enable_thinking", "true")

    async def story(model: TextModel) -> None:
        assert not model.switch
        assert model.honours.verdicts[Feature.THINK_OFF].fate == "approximated"
        unasked, silent = [await answer(model, ask("What is 7 + 8?", think=think)) for think in (None, "off")]
        assert unasked.reasoning == "I must add 7 and 8."
        assert silent.reasoning == ""
        assert silent.text

    told(engine, with_template(tmp_path, stuck), story)


@every_engine
def test_m3_who_asks_for_no_more_context_than_there_is_gets_it(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        for length, fate in ((1024, "honoured"), (2048, "honoured"), (2049, "dropped")):
            found = report(ask("Hello!", load=LoadOptions(context=length)), model.honours)
            assert "context_length" in getattr(found, fate)

    on(engine, story, context=2048)


@every_engine
def test_m3_what_is_called_refused_is_refused(engine: dict[str, Any]) -> None:
    fill = ask(prompt=Prompt(text="def f(", suffix=")"), messages=())

    async def story(model: TextModel) -> None:
        assert model.honours.verdicts[Feature.SUFFIX] == REFUSED
        with pytest.raises(Unsupported):
            await answer(model, fill)
        with pytest.raises(InvalidRequest):
            await answer(model, ask("Hi", tools=(Tool(name="a"),), tool_choice=ToolChoice("named", "b")))

    on(engine, story)


def test_thoughts_are_not_asked_for_where_nobody_reads_them() -> None:
    """Counting thoughts costs a little a token; most requests neither think nor name stop strings."""
    bodies: list[bytes] = []

    async def story(model: TextModel) -> None:
        stream = model.runner.stream

        def spy(kind: Any, body: bytes) -> Any:
            bodies.append(body)
            return stream(kind, body)

        model.runner.stream = spy  # type: ignore[method-assign]
        for request in (
            ask("Hello!"),
            ask("Hello!", think="off"),
            ask("Hello!", think="on"),
            ask("Hello!", sampling={"stop": ("x",)}),
        ):
            await answer(model, request)

    on(ENGINES[0].values[0], story)  # type: ignore[arg-type]
    assert [b"timings_per_token" in body for body in bodies] == [False, False, True, False]
    assert [b'"verbose"' in body for body in bodies] == [False, False, False, True]


def test_a_thought_in_history_is_shown_again() -> None:
    turns = (
        Message("user", (Text("What is 7 + 8?"),)),
        Message("assistant", (Reasoning("I must add 7 and 8."), Text("7 + 8 = 15"))),
        Message("user", (Text("Hello!"),)),
    )
    bare = (turns[0], Message("assistant", (Text("7 + 8 = 15"),)), turns[2])

    async def story(model: TextModel) -> None:
        assert await model.count(ask(messages=turns)) > await model.count(ask(messages=bare)) + 8

    on(ENGINES[0].values[0], story)  # type: ignore[arg-type]
