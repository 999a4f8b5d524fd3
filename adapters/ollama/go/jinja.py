"""A Go template in Jinja's words, which both engines render.

The values that Ollama gives its templates are made of those that chat templates have: ``messages``, ``tools``,
``enable_thinking``, ``reasoning_effort``. A template without ``.Messages`` is of the older kind, which is rendered turn by
turn, and last up to its ``.Response``. What differs from Ollama: messages of one role in a row stay apart, and maps keep
their order.

Source: ``template/template.go`` of Ollama 0.33.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from adapters.ollama.go.parse import (
    Assign,
    BadTemplate,
    Call,
    Dot,
    Expression,
    Field,
    If,
    Jump,
    Literal,
    Node,
    Print,
    Range,
    Text,
    Variable,
    parse,
)

LOOPS = 3
"""Loops inside one another: each may go over all messages."""


class _Value(NamedTuple):
    """A Jinja expression, and what kind of thing it gives."""

    text: str
    kind: str = "any"


_FIELDS: dict[str, dict[str, tuple[str, str]]] = {
    "root": {
        "Messages": ("messages", "[message]"),
        "Tools": ("(tools or [])", "[tool]"),
        "Think": ("(enable_thinking | default(false))", "any"),
        "ThinkLevel": ("(reasoning_effort | default(''))", "text"),
        "IsThinkSet": ("(enable_thinking is defined)", "any"),
        "Suffix": ("''", "text"),
    },
    "message": {
        "Role": ("{}.role", "text"),
        "Content": ("({}.content or '')", "text"),
        "Thinking": ("({}.reasoning_content or '')", "text"),
        "ToolCalls": ("({}.tool_calls or [])", "[call]"),
        "ToolName": ("({}.name or '')", "text"),
        "ToolCallID": ("({}.tool_call_id or '')", "text"),
        "Images": ("[]", "[any]"),
    },
    "call": {"ID": ("({}.id or '')", "text"), "Function": ("{}.function", "called")},
    "called": {"Name": ("{}.name", "text"), "Arguments": ("{}.arguments", "arguments")},
    "tool": {"Type": ("{}.type", "text"), "Function": ("{}.function", "function")},
    "function": {
        "Name": ("{}.name", "text"),
        "Description": ("({}.description or '')", "text"),
        "Parameters": ("({}.parameters or {{}})", "parameters"),
    },
    "parameters": {
        "Type": ("({}.type or '')", "types"),
        "Required": ("({}.required or [])", "[text]"),
        "Properties": ("({}.properties or {{}})", "{property}"),
        "Defs": ("{}['$defs']", "json"),
        "Items": ("{}['items']", "json"),
    },
    "property": {
        "Type": ("({}.type or '')", "types"),
        "Description": ("({}.description or '')", "text"),
        "Enum": ("({}.enum or [])", "[text]"),
        "Items": ("{}['items']", "json"),
    },
}
"""Kind -> field -> how to get it from ``{}``, and the kind that it has."""
_OLDER = {"System": "system", "Prompt": "prompt", "Response": "response"}
_PRINTED = {
    "text": "{}",
    "any": "{}",
    "arguments": "({0} if {0} is string else {0} | tojson)",
    "types": "({0} if {0} is string else {0} | tojson)",
}
_COMPARED = {"ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_VERB = re.compile(r"%([%svdq])")
_CONTENT = "(m.content or '')"


def jinja_of(source: str) -> str:
    """The Jinja template that says what a Go template says. Raises BadTemplate."""
    nodes = parse(source.replace("\r\n", "\n"))
    names = {name for node in nodes for name in _roots(node)}
    if "Messages" in names:
        return _newer(nodes)
    if "Response" not in names:
        nodes = (*nodes, Print(Field(Dot(), "Response")))
    return _older(nodes)


def _newer(nodes: Sequence[Node]) -> str:
    root = {**dict.fromkeys(_OLDER, "''"), "System": "go.system"}
    system = (
        "{% set go = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}"
        f"{{% set go.system = (go.system ~ '\\n\\n' if go.system else '') ~ {_CONTENT} %}}"
        "{% endif %}{% endfor %}"
    )
    return system + _Writer(root).write(nodes)


def _older(nodes: Sequence[Node]) -> str:
    last, _ = _cut(nodes)
    macros = "".join(
        f"{{% macro {name}(system, prompt, response) %}}{_Writer(_OLDER).write(body)}{{% endmacro %}}"
        for name, body in (("turn", nodes), ("last", last))
    )
    flush = (
        "{{ turn(go.system, go.prompt, go.response) }}"
        "{% set go.system = '' %}{% set go.prompt = '' %}{% set go.response = '' %}"
    )

    def joined(name: str) -> str:
        return f"{{% set go.{name} = (go.{name} ~ '\\n\\n' if go.{name} else '') ~ {_CONTENT} %}}"

    return (
        f"{macros}{{% set go = namespace(system='', prompt='', response='') %}}{{% for m in messages %}}"
        f"{{% if m.role == 'system' %}}{{% if go.prompt or go.response %}}{flush}{{% endif %}}{joined('system')}"
        f"{{% elif m.role == 'user' %}}{{% if go.response %}}{flush}{{% endif %}}{joined('prompt')}"
        f"{{% elif m.role == 'assistant' %}}{joined('response')}{{% endif %}}"
        "{% endfor %}{{ last(go.system, go.prompt, go.response) }}"
    )


def _cut(nodes: Sequence[Node]) -> tuple[tuple[Node, ...], bool]:
    """All up to the first ``.Response``, and whether there is one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, If | Range):
            first = node.then if isinstance(node, If) else node.body
            first, found = _cut(first)
            otherwise, also = ((), True) if found else _cut(node.otherwise)
            found = found or (also and bool(node.otherwise))
            if isinstance(node, If):
                kept.append(If(node.value, first, otherwise, node.scoped, node.name))
            else:
                kept.append(Range(node.over, first, otherwise, node.key, node.name))
        else:
            kept.append(node)
            found = False
        if found or "Response" in _roots(node):
            return tuple(kept), True
    return tuple(kept), False


def _roots(node: Node | Expression) -> set[str]:
    """The fields of what the template is given that are used: all names that are read from a dot or ``$``."""
    match node:
        case Field(of, name):
            return {name} | _roots(of)
        case Call(_, arguments):
            return set().union(*map(_roots, arguments))
        case Print(value) | Assign(_, value):
            return _roots(value)
        case If(value, then, otherwise) | Range(value, then, otherwise):
            return _roots(value).union(*map(_roots, then), *map(_roots, otherwise))
        case _:
            return set()


Names = dict[str, _Value]


class _Writer:
    """Nodes -> Jinja. ``root``: where the older values are; their kind is text."""

    def __init__(self, root: dict[str, str]) -> None:
        self._root = root
        self._count = 0
        self._loops = 0

    def write(self, nodes: Sequence[Node]) -> str:
        top = _Value("", "root")
        return "".join(self._nodes(nodes, top, {"": top}))

    def _nodes(self, nodes: Sequence[Node], dot: _Value, names: Names) -> Iterator[str]:
        names = dict(names)
        for node in nodes:
            match node:
                case Text(text):
                    yield f"{{{{ {_quoted(text)} }}}}"
                case Print(Literal(bool() as value)):
                    yield str(value).lower()
                case Print(value):
                    yield f"{{{{ {self._printed(self._value(value, dot, names))} }}}}"
                case Assign(name, value, new):
                    found = self._value(value, dot, names)
                    if not new:
                        known = self._variable(name, names)
                        yield f"{{% set {known.text} = {found.text} %}}"
                        continue
                    yield self._declared(name, found, names)
                case If():
                    yield from self._if(node, dot, names)
                case Range():
                    yield from self._range(node, dot, names)
                case Jump(word):
                    if not self._loops:
                        raise BadTemplate(f"{word} stands in no loop")
                    yield f"{{% {word} %}}"

    def _declared(self, name: str, value: _Value, names: Names) -> str:
        """A variable is a namespace's, as only those can be set from inside a loop."""
        space = self._new("v")
        names[name] = _Value(f"{space}.x", value.kind)
        return f"{{% set {space} = namespace(x={value.text}) %}}"

    def _if(self, node: If, dot: _Value, names: Names) -> Iterator[str]:
        value = self._value(node.value, dot, names)
        inner = dict(names)
        if node.name:
            yield self._declared(node.name, value, inner)
            value = inner[node.name]
        yield f"{{% if {value.text} %}}"
        if node.scoped:
            bound = _Value(self._new("w"), value.kind)
            yield f"{{% set {bound.text} = {value.text} %}}"
            yield from self._nodes(node.then, bound, inner)
        else:
            yield from self._nodes(node.then, dot, inner)
        if node.otherwise:
            yield "{% else %}"
            yield from self._nodes(node.otherwise, dot, inner)
        yield "{% endif %}"

    def _range(self, node: Range, dot: _Value, names: Names) -> Iterator[str]:
        over = self._value(node.over, dot, names)
        if over.kind == "root":
            raise BadTemplate("a loop goes over a list")
        self._loops += 1
        if self._loops > LOOPS:
            raise BadTemplate(f"more than {LOOPS} loops inside one another")
        inner = dict(names)
        element = _Value(self._new("e"), _element(over.kind))
        if over.kind == "arguments" or over.kind.startswith("{"):
            key = _Value(self._new("k"), "text")
            yield f"{{% for {key.text}, {element.text} in {over.text}.items() %}}"
        else:
            key = _Value(self._new("k"))
            yield f"{{% for {element.text} in {over.text} %}}{{% set {key.text} = loop.index0 %}}"
        if node.key:
            inner[node.key] = key
        if node.name:
            inner[node.name] = element
        yield from self._nodes(node.body, element, inner)
        self._loops -= 1
        if node.otherwise:
            yield "{% else %}"
            yield from self._nodes(node.otherwise, dot, names)
        yield "{% endfor %}"

    def _value(self, expression: Expression, dot: _Value, names: Names) -> _Value:
        match expression:
            case Literal(str() as text):
                return _Value(_quoted(text), "text")
            case Literal(value):
                return _Value("none" if value is None else str(value).lower())
            case Dot():
                return dot
            case Variable(name):
                return self._variable(name, names)
            case Field(of, name):
                return self._field(self._value(of, dot, names), name)
            case Call(function, arguments):
                return _called(function, [self._value(argument, dot, names) for argument in arguments])

    def _variable(self, name: str, names: Names) -> _Value:
        if name not in names:
            raise BadTemplate(f"undefined variable ${name}")
        return names[name]

    def _field(self, of: _Value, name: str) -> _Value:
        if of.kind == "root" and name in self._root:
            return _Value(self._root[name], "text")
        known = _FIELDS.get(of.kind, {}).get(name)
        if known is None:
            raise BadTemplate(f"unknown field .{name}")
        form, kind = known
        return _Value(form.format(of.text), kind)

    def _printed(self, value: _Value) -> str:
        if value.kind == "root":
            raise BadTemplate("everything at once cannot be printed")
        return _PRINTED.get(value.kind, "{} | tojson").format(value.text)

    def _new(self, letter: str) -> str:
        self._count += 1
        return f"{letter}{self._count}"


def _element(kind: str) -> str:
    return kind[1:-1] if kind[:1] in {"[", "{"} else "any"


def _called(function: str, given: list[_Value]) -> _Value:
    texts = [value.text for value in given]
    least, make = _FUNCTIONS.get(function, (0, None))
    if make is None:
        raise BadTemplate(f"function {function!r} is not supported")
    if len(given) < least:
        raise BadTemplate(f"function {function!r} is given too little")
    return make(given, texts)


def _compared(mark: str) -> Callable[[list[_Value], list[str]], _Value]:
    return lambda _, texts: _Value(f"({texts[0]} {mark} {texts[1]})")


def _equal(_: list[_Value], texts: list[str]) -> _Value:
    # Each text once: one that came twice would double with each bracket around it.
    first, *others = texts
    return _Value(f"({first} == {others[0]})" if len(others) == 1 else f"({first} in [{', '.join(others)}])")


def _index(given: list[_Value], texts: list[str]) -> _Value:
    kind = given[0].kind
    for _ in texts[1:]:
        kind = _element(kind)
    return _Value(texts[0] + "".join(f"[{at}]" for at in texts[1:]), kind)


def _slice(given: list[_Value], texts: list[str]) -> _Value:
    if len(texts) > 3:
        raise BadTemplate("slice takes two ends at most")
    first, last = [*texts[1:], "", ""][:2]
    return _Value(f"{texts[0]}[{first}:{last}]", given[0].kind)


def _printf(given: list[_Value], texts: list[str]) -> _Value:
    """``printf "%s-%d" $a $b`` -> ``($a ~ '-' ~ $b)``."""
    form = texts[0]
    if not form.startswith('"'):
        raise BadTemplate("printf needs a text that stands there")
    left = list(given[1:])
    pieces: list[str] = []
    at = 0
    form = form[1:-1]
    for verb in _VERB.finditer(form):
        pieces.append(f'"{form[at : verb.start()]}"')
        at = verb.end()
        if verb[1] == "%":
            pieces.append('"%"')
            continue
        if not left:
            raise BadTemplate("printf is given too little")
        value = left.pop(0)
        pieces.append(f"({value.text} | tojson)" if verb[1] == "q" else value.text)
    pieces.append(f'"{form[at:]}"')
    if left:
        raise BadTemplate("printf is given too much")
    return _Value("(" + (" ~ ".join(piece for piece in pieces if piece != '""') or "''") + ")", "text")


_FUNCTIONS: dict[str, tuple[int, Callable[[list[_Value], list[str]], _Value]]] = {
    "and": (1, lambda given, texts: _Value("(" + " and ".join(texts) + ")", given[-1].kind)),
    "or": (1, lambda given, texts: _Value("(" + " or ".join(texts) + ")", given[-1].kind)),
    "not": (1, lambda _, texts: _Value(f"(not {texts[0]})")),
    "eq": (2, _equal),
    **{name: (2, _compared(mark)) for name, mark in _COMPARED.items()},
    "len": (1, lambda _, texts: _Value(f"({texts[0]} | length)")),
    "index": (1, _index),
    "slice": (1, _slice),
    "json": (1, lambda _, texts: _Value(f"({texts[0]} | tojson)", "text")),
    "print": (0, lambda _, texts: _Value("(" + " ~ ".join(texts or ["''"]) + ")", "text")),
    "printf": (1, _printf),
    "currentDate": (0, lambda _, __: _Value("strftime_now('%Y-%m-%d')", "text")),
}
"""Name -> how many arguments it has at least, and what it becomes."""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
