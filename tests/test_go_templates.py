"""Ollama's TEMPLATE: what a Go template renders, its Jinja translation renders too, in both engines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adapters.ollama.go import is_jinja
from adapters.ollama.go.jinja import LOOPS, jinja_of
from adapters.ollama.go.parse import DEPTH, SIZE, BadTemplate

JINJA = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"], trim_blocks=True, lstrip_blocks=True)
JINJA.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Who?"},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2]}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "one"}, "b": {"type": ["integer", "null"]}},
            "required": ["a"],
        },
    },
}


def rendered(go: str, messages: list[dict[str, Any]] | None = None, **values: Any) -> str:
    return JINJA.from_string(jinja_of(go)).render(messages=TALK if messages is None else messages, **values)


@pytest.mark.parametrize(
    ("go", "text"),
    [
        ("{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}", "<system>Be brief.<user>Hi<assistant>Hello<user>Who?"),
        ("a {{- range .Messages -}}  x{{ end -}}\n b", "axxxxb"),
        ('{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Role | printf "%s," }}{{ end }}', "0system,1user,2assistant,3user,"),
        ("{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}last {{ $i }}{{ end }}{{ end }}", "last 3"),
        ('{{ $n := 0 }}{{ range .Messages }}{{ if eq .Role "user" "system" }}{{ $n = .Content }}{{ end }}{{ end }}{{ $n }}', "Who?"),
        ("{{ with .System }}[{{ . }}]{{ else }}none{{ end }}{{ len .Messages }}", "[Be brief.]4"),
        ("{{ with $s := .System }}{{ $s }}{{ end }}{{ range .Messages }}{{ break }}{{ end }}", "Be brief."),
        ('{{ range .Messages }}{{ if ne .Role "user" }}{{ continue }}{{ end }}{{ .Content }};{{ end }}', "Hi;Who?;"),
        ("{{ range .Messages }}{{ else }}nothing{{ end }}{{ (index .Messages 1).Content }}", "Hi"),
        ("{{ if and .System (not .Tools) }}a{{ else if .Tools }}b{{ else }}c{{ end }}{{ range .Messages }}{{ end }}", "a"),
        ('{{/* a note */}}{{- /* another */ -}} {{ print .System `\\n` "\\n\\u00e9" }}{{ .Messages | len }}', "Be brief.\\n\né4"),
        ("{{ json (index .Messages 1).Content }}{{ if or (gt 2 1) (le 1 0) }}{{ true }}{{ 1.5 }}{{ end }}", '"Hi"true1.5'),
        ("{{ .Prompt }}{{ .Suffix }}{{ .Response }}{{ range .Messages }}.{{ end }}", "...."),
        ('braces }} {% raw %} {# and #} "quotes" \\n {{ len .Messages }}', 'braces }} {% raw %} {# and #} "quotes" \\n 4'),
    ],
)  # fmt: skip
def test_what_a_template_says_is_said_in_jinja(go: str, text: str) -> None:
    assert rendered(go) == text


def test_calls_tools_and_thoughts_are_where_templates_look_for_them() -> None:
    """A template as those of tool models are: tools as JSON, calls with their arguments, results, thoughts."""
    go = (
        "{{ if .Tools }}{{ range .Tools }}{{ . }}|{{ .Function.Name }}({{ range $k, $p := .Function.Parameters.Properties }}"
        "{{ $k }}:{{ $p.Type }} {{ $p.Description }};{{ end }}){{ .Function.Parameters.Required }}{{ end }}{{ end }}\n"
        "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
        "{{ range .ToolCalls }}<{{ .Function.Name }} {{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}>"
        '{{ end }}{{ if eq .Role "tool" }}[{{ .ToolName }}]{{ end }}\n{{ end }}'
        "{{ if .Think }}think {{ .ThinkLevel }}{{ else if .IsThinkSet }}no thoughts{{ end }}"
    )
    messages = [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]},
        {"role": "tool", "name": "add", "content": "3"},
    ]
    tools, talk, *said = rendered(go, messages, tools=[TOOL], enable_thinking=True, reasoning_effort="high").split("\n")
    assert json.loads(tools.split("|")[0]) == TOOL
    assert tools.split("|", 1)[1] == 'add(a:integer one;b:["integer", "null"] ;)["a"]'
    assert [talk, *said] == ["add", '<think>hm</think><add {"a": 1, "b": [2]} a=1 b=[2]>', "3[add]", "think high"]
    assert rendered(go, messages, enable_thinking=False).endswith("no thoughts")
    assert rendered(go, messages).endswith("\n")


OLDER = "{{ if .System }}SYS {{ .System }}\n{{ end }}{{ if .Prompt }}USER {{ .Prompt }}\n{{ end }}BOT {{ .Response }}<end>\n"


def test_an_older_template_is_told_turn_by_turn_and_ends_where_the_answer_begins() -> None:
    assert rendered(OLDER) == "SYS Be brief.\nUSER Hi\nBOT Hello<end>\nUSER Who?\nBOT "
    assert rendered(OLDER, TALK[:3]) == "SYS Be brief.\nUSER Hi\nBOT Hello"
    twice = [TALK[1], {"role": "user", "content": "again"}]
    assert rendered(OLDER, twice) == "USER Hi\n\nagain\nBOT "
    assert rendered("{{ .Prompt }}", TALK[1:]) == "HiHelloWho?"
    assert (
        rendered("{{ if .System }}{{ .System }}{{ .Response }}x{{ else }}{{ .Response }}y{{ end }}z", TALK[:1])
        == "Be brief."
    )


def test_a_template_of_jinja_is_known() -> None:
    assert is_jinja("{% for m in messages %}{% endfor %}")
    assert not is_jinja(OLDER)


@pytest.mark.parametrize(
    "go",
    [
        "{{", "{{ .Messages", "{{ end }}", "{{ if .System }}", "{{ if .System }}{{ else }}", "{{ range }}{{ end }}", "{{ . }}",
        "{{ .Nonsense }}", "{{ $x }}", "{{ $x = 1 }}", "{{ call .X }}", "{{ toTypeScriptType .System }}", "{{ break }}",
        '{{ define "a" }}{{ end }}', '{{ template "a" }}', "{{ printf .System }}", '{{ printf "%s" }}', '{{ printf "a" 1 }}',
        "{{ range . }}{{ end }}", "{{ eq 1 }}", "{{ (1 }}", "{{ 1 2 }}", "{{ .System | 3 }}", "{{ if .System }}{{ else }}{{ else }}{{ end }}",
        "{{ slice .System 1 2 3 }}", "{{ $a, $b := 1 }}", '{{ "open }}', "{{/* open }}", "{{ @ }}", "{{ | }}", "{{ break 1 }}",
        "{{ range .Messages }}" * (LOOPS + 1) + "{{ end }}" * (LOOPS + 1),
        "{{ if .System }}" * (DEPTH + 1) + "{{ end }}" * (DEPTH + 1),
        "{{ if .A }}" + "{{ else if .A }}" * (DEPTH + 1) + "{{ end }}",
        "{{ " + "(" * (DEPTH + 1) + "1" + ")" * (DEPTH + 1) + " }}",
        "x" * (SIZE + 1),
        "{{ .System" + ".A" * (DEPTH + 1) + " }}",
        "{{ .System" + " | print" * (DEPTH + 1) + " }}",
        "{{ " + "1" * 5000 + " }}",
    ],
)  # fmt: skip
def test_what_cannot_be_translated_is_a_clear_400(go: str) -> None:
    with pytest.raises(BadTemplate) as refused:
        jinja_of(go)
    assert refused.value.status == 400
    assert refused.value.message.startswith("template error: ")


def test_a_template_never_becomes_much_longer_than_it_is() -> None:
    call = "1"
    for _ in range(DEPTH // 2):
        call = f"(eq {call} 1 2)"
    wide = f'{{{{ if eq (print "{"a" * 9000}") {"1 " * 9000} }}}}{{{{ end }}}}'
    for go in (f"{{{{ {call} }}}}", wide):
        assert len(jinja_of(go)) < 10 * len(go) + 2000


def test_what_is_as_deep_as_may_be_is_no_trouble() -> None:
    brackets = "(print " * (DEPTH - 1) + ".System" + ")" * (DEPTH - 1)
    go = (
        "{{ if .Messages }}" * (DEPTH - 1)
        + f"{{{{ {brackets}{' | print' * (DEPTH - 1)} }}}}"
        + "{{ end }}" * (DEPTH - 1)
    )
    assert "go.system" in jinja_of(go)


def test_half_a_character_that_no_text_can_have_is_another() -> None:
    assert rendered(r'{{ "\ud800" }}{{ if .Messages }}{{ end }}') == "\ufffd"


@given(st.lists(st.sampled_from([
    "{{", "}}", "{{- ", " -}}", "range ", "if ", "else", "end", ".Messages", ".Role", "$x", " := ", "=", "|", "(", ")", '"a"', "`b`",
    "eq ", "len ", "index ", "1", " ", "\n", "text", "{%", "%}", "{#", "\\", "'", '"', ".Response", ".", "$", ",", "é",
]), max_size=40).map("".join))  # fmt: skip
def test_any_text_is_translated_to_jinja_that_is_some_or_refused(go: str) -> None:
    try:
        jinja = jinja_of(go)
    except BadTemplate:
        return
    try:
        JINJA.from_string(jinja)
    except TemplateError as error:  # pragma: no cover
        raise AssertionError(f"{go!r} became {jinja!r}: {error}") from error


@given(st.text())
def test_text_outside_of_braces_stays_as_it_is(text: str) -> None:
    plain = text.replace("{{", "").replace("\r", "").replace("\x00", "")
    assert rendered(plain + " {{ if .Messages }}{{ end }}", [{"role": "user", "content": "x"}]) == plain + " "
