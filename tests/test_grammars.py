"""What grammars, patterns and schemas may cost: each of these once held up or killed llama.cpp. (Reliability 3)"""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from canonical.errors import InvalidRequest
from canonical.grammars import PATTERN_SIZE, pattern_size
from canonical.limits import check_grammar, check_schema

COSTLY = {
    "many parts that may be left out": "root ::= " + '"a"? ' * 8000,
    "many stars": "root ::= " + '"a"* ' * 1900,
    "empty in 2**60 ways": "root ::= r0\n"
    + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(60))
    + 'r60 ::= "a"?',
    "2**60 beginnings": "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} | r{i + 1}\n" for i in range(60)) + 'r60 ::= "a"',
    "itself first": 'root ::= root "a"',
    "itself first, by another": "root ::= b\nb ::= root",
    "itself after nothing": 'root ::= "a"? root',
    "stars of what may be empty": 'root ::= ("a"*)*',
    "bounds reversed": 'root ::= "a"{5,1}',
    "twice the ways a level": 'root ::= "x" root "y" | "x" root "z" | "x"',
    "the same behind a blank": 'root ::= "{" ws "a" root "}" | "{" ws "a" root "]" | "0"\nws ::= [ ]*',
    "sums that begin with a term or are one": 'root ::= term "+" root | term\nterm ::= "(" root ")" | [0-9]',
    "an optional beginning": 'root ::= ("(" root)? "(" root ")" | "1"',
    "more alternatives than anybody compares": "root ::= "
    + " | ".join(f'"w{i:04}" root "y"' for i in range(400))
    + ' | "z"',
    "another language": '%llguidance {}\nstart: "a"{1000000}',
}
FINE = {
    "a list": 'root ::= "- " item+\nitem ::= [^\\n]+ "\\n" # a line',
    "JSON": (
        'root ::= object\nvalue ::= object | array | string | ("true" | "false" | "null") ws\n'
        'object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws\n'
        'array ::= "[" ws (value ("," ws value)*)? "]" ws\nstring ::= "\\"" ([^"\\\\] | "\\\\" ["\\\\nrt])* "\\"" ws\n'
        'ws ::= | " " | "\\n" [ \\t]{0,20}'
    ),
    "recursion behind a character": 'root ::= "(" root ")" | "x"',
    "sums": 'root ::= term ("+" root)?\nterm ::= "(" root ")" | [0-9]+',
    "a list that leads back at its end": 'root ::= item | item "," root\nitem ::= [a-z]+',
    "objects that differ by a name": 'root ::= "{" ws "a:" root "}" | "{" ws "b:" root "}" | "0"\nws ::= [ ]*',
    "words with one beginning": 'root ::= "for " root ";" | "foreach " root ";" | "x"',
    "statements": (
        'root ::= statement*\nstatement ::= name "=" sum ";" | name "(" sum? ");" | ("while(" sum "){" statement* "}")\n'
        'sum ::= term ("+" term)*\nterm ::= name | "-" term | "(" sum ")"\nname ::= [a-z] [a-z0-9]*'
    ),
    "a chain": "root ::= r0\n"
    + "".join(f'r{i} ::= "a" r{i + 1}\n' for i in range(1900))
    + 'r1900 ::= "b" root "c" | "d"',
    "many words": "root ::= " + " | ".join(f'"word{i}"' for i in range(1500)),
    "a long count": 'root ::= [0-9]{1,2000} "."',
}
NONE = {
    "an open group": "root ::= (",
    "an open text": 'root ::= "a',
    "an open class": "root ::= [a",
    "no rule at all": "my secret",
    "no root": 'a ::= "x"',
    "no such rule": "root ::= a",
    "a strange escape": r'root ::= "\q"',
    "half an escape": r'root ::= "\x4"',
    "a rule that begins nowhere": 'root ::= "a"\n"b"',
    "nothing, repeated": 'root ::= ""*',
    "a repetition of nothing": "root ::= *",
}
"""What llama.cpp refuses too, after it has printed it to standard error."""


@pytest.mark.parametrize("grammar", COSTLY.values(), ids=COSTLY)
def test_a_grammar_that_would_hold_up_everybody_is_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest):
        check_grammar(grammar)


@pytest.mark.parametrize("grammar", FINE.values(), ids=FINE)
def test_a_grammar_of_the_usual_kind_is_not(grammar: str) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize("grammar", NONE.values(), ids=NONE)
def test_m4_what_is_no_grammar_never_reaches_an_engine_that_would_print_it(grammar: str) -> None:
    with pytest.raises(InvalidRequest, match="failed to parse grammar") as caught:
        check_grammar(grammar)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "grammar", ['root ::=\n  "a" |\n  "b"', 'root ::= (\n"a"\n"b"\n)', 'root ::= "a" # c\n\n# d\n', ""]
)
def test_a_rule_goes_on_where_it_may(grammar: str) -> None:
    check_grammar(grammar)


@pytest.mark.parametrize(
    ("pattern", "size"),
    [("", 0), ("^abc$", 5), ("a{3}", 3), ("(ab){3}", 9), ("((a{9}){9}){9}", 819), ("[a-z(]{2}", 12), (r"\({2}", 4)],
)
def test_a_pattern_is_measured_with_its_repetitions_written_out(pattern: str, size: int) -> None:
    assert pattern_size(pattern) == size


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a{2000}){2000}$",
        "^" + "(a|" * 300 + ")" * 300 + "$",
        "^#a{9999999}$",
        '^"a{9999999}"$',
        "x" * PATTERN_SIZE + "y",
    ],
)
def test_a_pattern_that_stands_for_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRequest):
        _check({"type": "string", "pattern": pattern})


def test_choices_that_multiply_through_references_are_refused() -> None:
    doubling = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(60)}
    with pytest.raises(InvalidRequest, match="multiply"):
        _check({"$defs": {**doubling, "a60": {"type": "string"}}, "$ref": "#/$defs/a0"})


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "type": "object"},
    ],
)
def test_references_in_a_circle_are_refused(schema: object) -> None:
    with pytest.raises(InvalidRequest, match="circle"):
        _check(schema)


def test_a_tree_of_references_is_fine() -> None:
    _check(
        {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    )


def _check(schema: object) -> None:
    check_schema(Raw(json.dumps(schema).encode()), param="response_format")


HERE = {"$ref": "#/$defs/n"}
NUMBER = {"type": "integer"}


def thing(properties: dict[str, object], required: list[str] | None = None) -> dict[str, object]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names}


def choice(*alternatives: object, **defs: object) -> dict[str, object]:
    return {"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": list(alternatives)}, **defs}}


DOUBLING = {
    "one property first": choice(thing({"a": HERE, "b": NUMBER}), thing({"a": HERE, "c": NUMBER})),
    "constants that meet": choice(
        thing({"op": {"enum": ["+", "-"]}, "l": HERE}), thing({"op": {"const": "-"}, "l": HERE}), NUMBER
    ),
    "properties that may be left out": choice(thing({"x": HERE}, []), thing({"x": HERE, "z": NUMBER}, [])),
    "two lists": choice({"type": "array", "items": HERE}, {"type": "array", "items": HERE, "maxItems": 3}),
    "any name, or one": choice({"type": "object", "additionalProperties": HERE}, thing({"a": HERE})),
    "behind references": choice(
        {"$ref": "#/$defs/p"}, {"$ref": "#/$defs/q"}, p=thing({"a": HERE}), q=thing({"a": HERE, "b": NUMBER})
    ),
    "behind another choice": choice(
        thing({"a": {"anyOf": [HERE, NUMBER]}, "b": NUMBER}), thing({"a": {"anyOf": [HERE, NUMBER]}, "c": NUMBER})
    ),
}
TREES = {
    "a syntax tree": choice(
        thing({"type": {"const": "add"}, "l": HERE, "r": HERE}), thing({"type": {"const": "neg"}, "of": HERE}), NUMBER
    ),
    "kinds by a list": choice(thing({"op": {"enum": ["+"]}, "l": HERE}), thing({"op": {"enum": ["!"]}, "l": HERE})),
    "different names": choice(thing({"x": HERE}), thing({"y": HERE})),
    "different names that may be left out": choice(thing({"x": HERE}, []), thing({"y": HERE}, [])),
    "a list or an object": choice({"type": "array", "items": HERE}, thing({"x": HERE})),
    "children": choice(thing({"v": NUMBER, "kids": {"type": "array", "items": HERE}})),
}


@pytest.mark.parametrize("schema", DOUBLING.values(), ids=DOUBLING)
def test_a_choice_that_doubles_with_each_level_is_refused(schema: object) -> None:
    with pytest.raises(InvalidRequest, match="too many ways"):
        check_schema(Raw(json.dumps(schema).encode()), param="response_format")


@pytest.mark.parametrize("schema", TREES.values(), ids=TREES)
def test_a_recursive_schema_of_the_usual_kind_is_not(schema: object) -> None:
    check_schema(Raw(json.dumps(schema).encode()), param="response_format")
