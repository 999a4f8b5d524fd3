"""Patterns of schemas, as the grammars of the engines inside hold them: M3."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from backends.llama_cpp.patterns import rewrite
from canonical.errors import Unsupported
from canonical.requests import Output
from tests.test_llama_cpp import answer, ask, every_engine, on

HELD = [
    r"^\d{2,4}$", r"^\w+$", r"^.{1,5}$", r"^[^x]{3}$", r"^[ -~]{4}$", r"^a\.b$", r"^\S+$", r"^[a-z]+@[a-z]+\.(com|org)$",
    r"^(?:ab|c)?\D{2}$", r"^[\w.-]{3}$", r"^\(\d\)\s\+$", "^[\u00e4-\u00fc]{2}$", r"^a+?b*$", r"^[\d\-]{3}$", r"^[^\]\\\"]{2}$",
    r"^[^\s]{2}$", r"^[^\S\d]$",
]  # fmt: skip
NOT = [
    r"^a\bc$",
    r"^(?=a)b$",
    r"^(a)\1$",
    '^a"b$',
    r"^\\d{3}$",
    r"^\n$",
    r"^\p{L}$",
    "^a^b$",
    r"^[z-a]$",
    "^[a$",
    "^a\\$",
    "^(?i)a$",
]

chars = st.characters(exclude_categories=("Cs",))


@pytest.mark.parametrize("pattern", HELD)
@given(text=st.text(chars, max_size=6) | st.text(st.sampled_from('abcx019.-@ +()_"\\\n\u00e9'), max_size=6))
def test_a_pattern_means_the_same_but_for_what_json_escapes(pattern: str, text: str) -> None:
    found = re.compile(rewrite(pattern).removesuffix("$") + r"\Z").match(text)
    means = re.compile(pattern.removesuffix("$") + r"\Z", re.ASCII).match(text)
    if found:
        assert means
        assert json.dumps(text, ensure_ascii=False)[1:-1] == text
    elif means:
        escaped = json.dumps(text, ensure_ascii=False)[1:-1] != text or "\x7f" in text
        assert escaped or any(char.isspace() or char == "\ufeff" for char in text)  # not all agree on what is blank


@pytest.mark.parametrize("pattern", NOT)
def test_what_has_no_such_form_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^it |stands"):
        rewrite(pattern)


def output(pattern: str) -> Output:
    fields = {"v": {"type": "string", "pattern": pattern}}
    return Output("schema", Raw(json.dumps({"type": "object", "properties": fields, "required": ["v"]}).encode()))


@every_engine
def test_m3_patterns_are_held_and_what_comes_is_json(engine: dict[str, Any]) -> None:
    async def story(model: Any) -> None:
        for pattern in HELD:
            found = await answer(model, ask("Hello!", output=output(pattern), sampling={"max_tokens": 40}))
            if found.reason == "stop":
                assert re.fullmatch(pattern, json.loads(found.text)["v"]), pattern
        for pattern in NOT:
            with pytest.raises(Unsupported):
                await answer(model, ask("Hello!", output=output(pattern)))

    on(engine, story)
