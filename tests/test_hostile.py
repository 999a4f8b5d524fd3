"""Hostile requests against a live gateway with the model inside: each is refused, or answered, soon, and harms nobody.

Every row once hung the engine for everybody, killed it, took gigabytes, or was a 500. (Reliability 2, 3 and 8)
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving import Served, serving
from tests.test_grammars import COSTLY
from tests.ways import INSIDE

CHAT, OCHAT, COMPLETE = "/v1/chat/completions", "/api/chat", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]
DOUBLING = {f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(60)}
FORMLESS: list[Any] = [
    {"type": {}},
    {"type": [{}]},
    {"type": "object", "required": 5},
    {"type": "object", "required": [{}]},
    {"type": "object", "properties": [1]},
    {"type": "string", "format": []},
    {"oneOf": [{"properties": [1]}, {"properties": [2]}]},
    {"oneOf": [{"properties": {"a": {"const": 1}}, "required": 5}] * 2},
    {"type": {}, "enum": [1]},
]
TOO_MUCH: list[Any] = [
    {"$defs": {**DOUBLING, "a60": {"type": "string"}}, "$ref": "#/$defs/a0"},
    {"type": "string", "pattern": "^(a{2000}){2000}$"},
    {"type": "string", "pattern": "^(" + "|".join("a" * 20_000) + ")$"},
    {"$ref": "#"},
    {"enum": [str(number) for number in range(20_000)]},
]
LEAK = re.compile(rb"Traceback|0x[0-9a-f]{6}|\.py\b|\.cpp\b|/(?:home|root|tmp|usr|work)/")
SECONDS = 2.0
"""The promise: bad input is refused within them."""
MEMORY = 96 * 1024 * 1024
"""The promise: one request adds no more than this and eight times its size."""


def _png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def _picture(data: bytes) -> list[dict[str, Any]]:
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def _refused() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A name, a path, and the fields that make a request hostile."""
    for name, grammar in COSTLY.items():
        yield f"grammar: {name}", CHAT, {"grammar": grammar}
    yield "grammar: nothing can follow", COMPLETE, {"grammar": "root ::= [z-a]", "prompt": "x"}
    for number, schema in enumerate([*FORMLESS, *TOO_MUCH]):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
        yield f"schema {number}", CHAT, {"response_format": form}
        yield f"schema {number} of Ollama's", OCHAT, {"format": schema}
        yield f"schema {number} of llama.cpp's", COMPLETE, {"json_schema": schema, "prompt": "x"}
    for number, schema in enumerate(TOO_MUCH):
        tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
        yield f"tool {number}", CHAT, {"tools": tools, "tool_choice": "required"}
        yield f"tool {number} of Ollama's", OCHAT, {"tools": tools}
    yield "a constraint that is not held", COMPLETE, {"json_schema": {"not": {"type": "null"}}, "prompt": "x"}
    text = "x" * 5_000_000
    for role in ("user", "assistant", "tool"):
        yield (
            f"a long text of {role}",
            CHAT,
            {"messages": [*HELLO, {"role": role, "tool_call_id": "a", "content": text}]},
        )
    yield "a long prompt", COMPLETE, {"prompt": text}
    described = [{"type": "function", "function": {"name": "f", "description": text}}]
    yield "a long tool", CHAT, {"tools": described}
    yield "a hundred thousand biases", CHAT, {"logit_bias": {str(number): 1 for number in range(100_000)}}
    yield "a picture of 10 gigapixels", CHAT, {"messages": _picture(_png(100_000, 100_000))}
    yield "a picture of 70 megapixels", CHAT, {"messages": _picture(_png(10_000, 7_000))}
    yield "a picture of 21 MiB", CHAT, {"messages": _picture(_png(1, 1) + b"\0" * (21 << 20))}
    yield "a broken picture", CHAT, {"messages": _picture(_png(1, 1)[:30])}
    yield "10,001 messages", CHAT, {"messages": HELLO * 10_001}
    yield "65 pictures", CHAT, {"messages": [_picture(_png(1, 1))[0]] * 65}


REFUSED = list(_refused())


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(INSIDE) as served:
        assert _ask(served, CHAT, {})[0] == 200, "the model does not load"
        yield served


def _ask(gateway: Served, path: str, fields: dict[str, Any]) -> tuple[int, bytes, int]:
    """Status, body, and the bytes that were sent."""
    request: dict[str, Any] = {"model": "pip", "max_tokens": 4, "stream": False, **fields}
    if path != COMPLETE:
        request = {"messages": HELLO, **request}
    body = json.dumps(request).encode()
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read(), len(body)
    finally:
        connection.close()


def _memory(gateway: Served, field: str) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize(("path", "fields"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_hostile_request_is_refused_and_harms_nobody(gateway: Served, path: str, fields: dict[str, Any]) -> None:
    measured = Path("/proc/self/clear_refs").exists()
    if measured:
        before = _memory(gateway, "VmRSS")
        Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    began = time.monotonic()
    status, answer, size = _ask(gateway, path, fields)
    took = time.monotonic() - began
    assert 400 <= status < 500, answer
    assert "error" in json.loads(answer)
    assert not LEAK.search(answer)
    assert took < SECONDS
    if measured:
        assert _memory(gateway, "VmHWM") - before < MEMORY + 8 * size
    assert _ask(gateway, CHAT, {})[0] == 200, "the next one paid for it"


def test_many_texts_do_not_hold_a_model_for_one_that_has_left(gateway: Served) -> None:
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    connection.request("POST", "/v1/embeddings", json.dumps({"model": "embed", "input": ["x y z"] * 100_000}))
    connection.close()
    assert _ask(gateway, "/v1/embeddings", {"model": "embed", "input": "x"})[0] == 200
    _ask(gateway, "/api/generate", {"model": "embed", "keep_alive": 0})
    began = time.monotonic()
    assert _ask(gateway, "/v1/embeddings", {"model": "embed", "input": "x"})[0] == 200
    assert time.monotonic() - began < SECONDS, "the model was not free to be closed"


def test_nothing_of_it_was_a_defect_of_ours(gateway: Served) -> None:
    """Runs last: no request above fell through to the last resort."""
    assert "Traceback" not in gateway.log()
