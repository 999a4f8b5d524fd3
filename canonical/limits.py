"""What one request may ask for, checked before any decoder, engine or backend sees it.

The figures are those of the reliability promises: some inputs within JSON's grammar kill or hang llama.cpp, and some
JSON that parsers accept means different things to different parsers.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, NoReturn

from msgspec import Raw

from canonical import schemas
from canonical.errors import InvalidRequest
from canonical.grammars import PATTERN_SIZE, check_cost, pattern_size
from canonical.messages import Image
from canonical.requests import Generate

BODY = 32 * 1024 * 1024
"""Bytes of a JSON body."""
DEPTH = 64
VALUES = 1_000_000
"""JSON values in a body: past this, looking at each takes seconds."""
MESSAGES = 10_000
CHOICES = 16
IMAGES = 64
SCHEMA_DEPTH = 64
SCHEMA_NODES = 2_000
GRAMMAR_BYTES = 64 * 1024
GRAMMAR_NESTING = 200
GRAMMAR_RULES = 2_000
GRAMMAR_REPETITION = 2_000

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_GRAMMAR_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*+"|\[(?:[^\]\\\n]|\\.)*+\]|#[^\n]*')
_REPETITION = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_BOUNDS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def check_json(body: bytes) -> None:
    """Refuse what is not one JSON value of strict form and bounded depth; the value itself is thrown away.

    Raises:
        InvalidRequest: empty, not UTF-8, malformed, nested deeper than ``DEPTH``, a name twice in one object,
            an integer beyond 64 bits, a number that is not finite, or more than ``VALUES`` values.
    """
    if not body or body.isspace():
        raise InvalidRequest("missing request body")
    check_extent(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error
    try:
        _strict.decode(text)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error


def check_extent(body: bytes) -> None:
    """Refuse what takes long to read, whether it is JSON or not. Raises InvalidRequest: too deep, or too many values."""
    if body.count(b"{") + body.count(b"[") > DEPTH:
        _check_depth(body)
    if body.count(b",") >= VALUES and _STRING.sub(b"", body).count(b",") >= VALUES:
        raise InvalidRequest(f"the body has more than {VALUES} values")


def check_generate(request: Generate) -> None:
    """Refuse a request past the limits on messages, images, schemas of tools and of the answer.

    Raises:
        InvalidRequest: names the field.
    """
    if len(request.messages) > MESSAGES:
        raise InvalidRequest(f"at most {MESSAGES} messages are accepted", param="messages")
    images = sum(isinstance(part, Image) for message in request.messages for part in message.parts)
    if images > IMAGES:
        raise InvalidRequest(f"at most {IMAGES} images are accepted", param="messages")
    for tool in request.tools:
        if tool.parameters is not None:
            check_schema(tool.parameters, param="tools")
    if request.output is not None and request.output.schema is not None:
        check_schema(request.output.schema, param="response_format")


def check_schema(schema: Raw | bytes, *, param: str) -> None:
    """Refuse a JSON Schema too deep, too large, or with bounds that llama.cpp's grammars cannot hold.

    A node is any value inside the schema: 20,000 enum entries hang the engine as surely as 20,000 properties.
    """
    root: Any = json.loads(bytes(schema))
    nodes = 0
    level: list[Any] = [root]
    for _ in range(SCHEMA_DEPTH):
        below: list[Any] = []
        for value in level:
            nodes += 1
            if isinstance(value, dict):
                _check_bounds(value, param)
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if nodes + len(below) > SCHEMA_NODES:
            raise InvalidRequest(f"the schema has more than {SCHEMA_NODES} nodes", param=param)
        if not below:
            schemas.check_choices(root, param=param)
            schemas.check_recursion(root, param=param)
            return
        level = below
    raise InvalidRequest(f"the schema is nested deeper than {SCHEMA_DEPTH}", param=param)


def check_grammar(grammar: str, *, param: str = "grammar") -> None:
    """Refuse a GBNF grammar past the limits on bytes, nesting, rules and repetition, or too costly to follow."""
    if len(grammar.encode()) > GRAMMAR_BYTES:
        raise InvalidRequest(f"a grammar may have at most {GRAMMAR_BYTES} bytes", param=param)
    if grammar.lstrip().startswith("%"):
        raise InvalidRequest("a grammar must be GBNF", param=param)  # llguidance reads others, past these limits
    bare = _GRAMMAR_LITERAL.sub(" ", grammar)
    if bare.count("::=") > GRAMMAR_RULES:
        raise InvalidRequest(f"a grammar may have at most {GRAMMAR_RULES} rules", param=param)
    depth = 0
    for bracket in re.findall(r"[()]", bare):
        depth += 1 if bracket == "(" else -1
        if depth > GRAMMAR_NESTING:
            raise InvalidRequest(f"a grammar may be nested at most {GRAMMAR_NESTING} deep", param=param)
    _check_repetition(bare, param)
    check_cost(grammar, param=param)


def _check_repetition(text: str, param: str) -> None:
    for counts in _REPETITION.findall(text):
        if any(count and (len(count) > 9 or int(count) > GRAMMAR_REPETITION) for count in counts):
            raise InvalidRequest(f"a grammar may repeat at most {GRAMMAR_REPETITION} times", param=param)


def _check_bounds(schema: dict[str, Any], param: str) -> None:
    for name in _BOUNDS:
        value = schema.get(name)
        if isinstance(value, int | float) and value > GRAMMAR_REPETITION:
            raise InvalidRequest(f"{name} may be at most {GRAMMAR_REPETITION} in a schema", param=param)
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        _check_repetition(pattern, param)
        if pattern_size(pattern) > PATTERN_SIZE:
            raise InvalidRequest(f"a pattern may stand for at most {PATTERN_SIZE} characters", param=param)
        if pattern.count("(") > GRAMMAR_NESTING:
            raise InvalidRequest(f"a pattern may have at most {GRAMMAR_NESTING} groups", param=param)


def _check_depth(body: bytes) -> None:
    depth = 0
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * VALUES:
        raise InvalidRequest(f"the body has more than {VALUES} values")
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        if depth > DEPTH:
            raise InvalidRequest(f"the body is nested deeper than {DEPTH}")


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"the name {twice[:80]!r} stands twice in one object")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"the integer {digits[:24]} has more than 64 bits")
    return 0


def _float(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"the number {digits[:24]} is not finite")
    return 0.0


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_strict = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)
