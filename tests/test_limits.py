"""The limits on what a request may ask for: just inside passes, just outside is refused as the client's fault."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from canonical import limits
from canonical.errors import InvalidRequest
from canonical.media import Blob
from canonical.messages import Image, Message, Text
from canonical.requests import Generate, Output, Tool

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_json_within_the_limits_passes(value: Any) -> None:
    limits.check_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


@given(st.binary())
def test_any_bytes_pass_or_are_refused_politely(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        limits.check_json(body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b" \n", "missing request body"),
        (b"{", "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"a":1,"a":2}', "'a' stands twice"),
        (b'{"b":{"a":1,"a":2}}', "'a' stands twice"),
        (b'{"a":1,"\\u0061":2}', "'a' stands twice"),
        (b"[18446744073709551616]", "64 bits"),
        (b"[-9223372036854775809]", "64 bits"),
        (b"[" + b"9" * 5000 + b"]", "64 bits"),
        (b"[1e999]", "not finite"),
        (b"[NaN]", "NaN is not a JSON value"),
        (b"[-Infinity]", "not a JSON value"),
        (b"[" * 65 + b"]" * 65, "nested deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b"[" + b"0," * limits.VALUES + b"0]", "values"),
    ],
)
def test_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        limits.check_json(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 64 + b"]" * 64,
        b'"' + b"[" * 1000 + b'"',
        b'["' + b"{" * 1000 + b'\\"[[[", 1]',
        b"[18446744073709551615,-9223372036854775808]",
        b'"' + b"," * (limits.VALUES + 1) + b'"',
        b'[{"a":1},{"a":2}]',
    ],
)
def test_accepted(body: bytes) -> None:
    limits.check_json(body)


def _chat(*parts: Any, messages: int = 1, **more: Any) -> Generate:
    return Generate(model="m", messages=(Message("user", parts),) * messages, **more)


def test_messages_and_images() -> None:
    picture = Image(Blob(b"", "image/png"))
    limits.check_generate(_chat(Text("x"), messages=limits.MESSAGES))
    limits.check_generate(_chat(*[picture] * limits.IMAGES))
    with pytest.raises(InvalidRequest, match="messages"):
        limits.check_generate(_chat(messages=limits.MESSAGES + 1))
    with pytest.raises(InvalidRequest, match="images"):
        limits.check_generate(_chat(*[picture] * 33, messages=2))


def _nested(depth: int) -> Raw:
    return Raw(b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1))


def _wide(nodes: int) -> Raw:
    return Raw(json.dumps({"enum": list(range(nodes - 2))}).encode())


@pytest.mark.parametrize("schema", [_nested(limits.SCHEMA_DEPTH), _wide(limits.SCHEMA_NODES), Raw(b"{}")])
def test_schemas_within_the_limits(schema: Raw) -> None:
    limits.check_schema(schema, param="tools")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (_nested(limits.SCHEMA_DEPTH + 1), "deeper"),
        (_wide(limits.SCHEMA_NODES + 1), "nodes"),
        (Raw(b'{"properties":{"a":{"maxLength":2001}}}'), "maxLength may be at most"),
        (Raw(b'{"anyOf":[{"minItems":1e9}]}'), "minItems may be at most"),
        (Raw(b'{"pattern":"a{3000}"}'), "repeat at most"),
    ],
)
def test_schemas_past_the_limits(schema: Raw, words: str) -> None:
    for request in (
        _chat(tools=(Tool(name="f", parameters=schema),)),
        _chat(tools=(Tool(name="f"),), output=Output("schema", schema)),
    ):
        with pytest.raises(InvalidRequest, match=words):
            limits.check_generate(request)
    limits.check_generate(_chat(output=Output("json")))


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        ('root ::= "' + "a" * limits.GRAMMAR_BYTES + '"', "bytes"),
        ("root ::= " + "(" * 201 + '"a"' + ")" * 201, "nested"),
        ("\n".join(f'r{i} ::= "a"' for i in range(limits.GRAMMAR_RULES + 1)), "rules"),
        ('root ::= "a"{2001}', "repeat"),
        ('root ::= "a"{1,2001}', "repeat"),
        ('root ::= "a"{ 99999999999999999999 , }', "repeat"),
    ],
)
def test_grammars_past_the_limits(grammar: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        limits.check_grammar(grammar)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "' + "(" * 300 + '" [(' + "(" * 300 + "]\n# " + "(" * 300,
        'root ::= ("a"){2000} ("b"){0,3} "{5000}"',
        "",
    ],
)
def test_grammars_within_the_limits(grammar: str) -> None:
    limits.check_grammar(grammar)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b'"x",' * (limits.VALUES - 2) + b'"x"]}',
        b"{" + b",".join(b'"%d":0' % name for name in range(300_000)) + b',"299999":0}',
        b"[]" * (limits.BODY // 2),
        b"]" * limits.BODY,
        b'"' * (limits.BODY - 1),
        b'"' + b"\\" * (limits.BODY - 2),
        b'"' + b"{" * (limits.BODY - 2) + b'"',
        b" " * limits.BODY,
    ],
    ids=["values", "name twice", "pairs", "ends", "quotes", "escapes", "a text", "nothing"],
)
def test_the_costliest_bodies_are_judged_within_two_seconds(body: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(InvalidRequest):
        limits.check_json(body)
    assert time.process_time() - began < 2
