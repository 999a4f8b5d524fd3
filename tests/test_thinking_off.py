"""Thinking that is off is off: a form is held from the first token, and no thought comes that nobody wants: M3.

The demo model thinks unasked where it is told to think. To begin every answer with a thought it is pushed, by the chance
of the token that opens one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw, structs

from backends.llama_cpp.gguf import read_head
from canonical.events import Completion
from canonical.requests import Generate, Origin, Output, Tool, ToolChoice
from tests.test_llama_cpp import answer, ask, every_engine, told
from tests.test_llama_cpp_facts import PIP, with_template
from tests.test_llama_cpp_facts import told as told_by

OPENS = 1016
"""The token ``<think>``."""
PUSHED: dict[str, Any] = {"logit_bias": {OPENS: 100}, "max_tokens": 60}
FACT = b'{"type":"object","properties":{"so":{"type":"boolean"}},"required":["so"]}'
CHECK, LOOK = (Tool(name=name, parameters=Raw(FACT)) for name in ("check", "look"))
STEPS = "Think step by step: what is 3 + 4?"
FORMS: dict[str, dict[str, Any]] = {
    "schema": {"output": Output("schema", Raw(FACT))},
    "named": {"tools": (CHECK, LOOK), "tool_choice": ToolChoice("named", "look")},
    "required": {"tools": (CHECK, LOOK), "tool_choice": ToolChoice("required")},
    "field": {"origin": Origin("openai", b'{"json_schema":%s}' % FACT)},
    "beside tools": {"output": Output("schema", Raw(FACT)), "tools": (CHECK,)},
}


def held(found: Completion, form: str) -> None:
    """Check that an answer has its form, and nothing before it."""
    assert (found.reasoning, found.reason) == ("", "tool_calls" if found.tool_calls else "stop")
    if form in {"named", "required"}:
        (call,) = found.tool_calls
        assert call.name in ({"look"} if form == "named" else {"check", "look"})
    written = found.tool_calls[0].arguments if found.tool_calls else found.text
    assert isinstance(json.loads(written)["so"], bool)


@every_engine
def test_m3_a_form_is_held_from_the_first_token_where_thinking_is_off(engine: dict[str, Any]) -> None:
    asked = [ask("Hello!", think="off", sampling=PUSHED, **form) for form in FORMS.values()]
    unsaid = [structs.replace(request, think=None) for request in asked]  # the settings say off
    for form, *found in zip(FORMS, told(engine, *asked), told(engine, *unsaid), strict=True):
        for one in found:
            held(one, form)


@every_engine
def test_m3_so_it_is_by_a_model_that_always_thinks(tmp_path: Path, engine: dict[str, Any]) -> None:
    stuck = read_head(PIP).template.replace("enable_thinking", "true")

    async def story(model: Any) -> None:
        for form, more in FORMS.items():
            held(await answer(model, ask("Hello!", think="off", sampling=PUSHED, **more)), form)

    told_by(engine, with_template(tmp_path, stuck), story)


@every_engine
def test_m3_what_is_thought_unasked_is_left_out(engine: dict[str, Any]) -> None:
    plain = ask(STEPS, think="off")
    by_dialect = structs.replace(plain, think=None, origin=Origin("anthropic", b"{}"))
    for found in told(engine, plain, by_dialect, thinking="auto"):
        assert (found.reasoning, found.text, found.reason) == ("", "3 + 4 = 7", "stop")
        assert found.usage is not None
        assert found.usage.completion > 10  # the thought was paid for


@every_engine
def test_m3_log_probabilities_of_a_thought_left_out_are_too(engine: dict[str, Any]) -> None:
    (found,) = told(engine, ask(STEPS, think="off", top_logprobs=1))
    assert "".join(token.token for token in found.logprobs) == found.text == "3 + 4 = 7"


@every_engine
@pytest.mark.parametrize("think", ["off", None])
def test_a_clients_word_to_the_template_stands(engine: dict[str, Any], think: Any) -> None:
    spoken: Generate = ask(
        STEPS, think=think, origin=Origin("openai", b'{"chat_template_kwargs":{"enable_thinking":true}}')
    )
    (found,) = told(engine, spoken)
    assert (found.reasoning, found.text) == ("I must add 3 and 4.", "3 + 4 = 7")
