"""Schemas and forced calls -> grammars in GBNF, by the package's own converter, made right."""

from __future__ import annotations

import json
from typing import Any

from llama_cpp.llama_grammar import SchemaConverter

from backends.llama_cpp.batching.refusal import Refused
from canonical.forced import NO_ARGUMENTS
from canonical.limits import check_grammar


class _Converter(SchemaConverter):
    """The package's own, which takes the backslashes of JSON for those of a grammar."""

    def _format_literal(self, literal: str) -> str:
        text = json.dumps(json.loads(literal), ensure_ascii=False).replace("\\", "\\\\")
        return str(super()._format_literal(text))  # type: ignore[no-untyped-call]


def of_schema(schema: Any) -> str:
    """The grammar of the JSON texts that a schema allows.

    Raises:
        Refused: the converter does not know what it says.
        InvalidRequest: the grammar is past its limits.
    """
    try:
        made: Any = _Converter
        converter = made(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
        converter.visit(converter.resolve_refs(json.loads(json.dumps(schema)), "stdin"), "")
        grammar: str = converter.format_grammar()
        grammar.encode()
    except (KeyError, AssertionError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise Refused(501, f"this schema is not supported by this engine: {error!r}") from error
    # A string of JSON has no control characters, which this generator forgets.
    grammar = grammar.replace('char ::= [^"\\\\] |', 'char ::= [^"\\\\\\x7F\\x00-\\x1F] |', 1)
    check_grammar(grammar)
    return grammar


def of_call(tools: list[dict[str, Any]], choice: str | dict[str, Any]) -> str:
    """A grammar of exactly one call, of any tool or of the named one. Raises as ``of_schema``."""
    named = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    functions = [tool["function"] for tool in tools if named in {None, tool["function"]["name"]}]
    if not functions:
        raise Refused(400, f"there is no tool named {str(named)[:64]!r}")
    choices = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters", NO_ARGUMENTS),
            },
            "required": ["name", "arguments"],
        }
        for function in functions
    ]
    lines = of_schema({"anyOf": choices}).splitlines()
    renamed = ["forced-call" + line[4:] if line.startswith("root ::=") else line for line in lines]
    return "\n".join([*renamed, 'root ::= "<tool_call>\\n" forced-call "\\n</tool_call>"'])
