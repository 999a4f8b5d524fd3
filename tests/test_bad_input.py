"""Bad input over HTTP: the caller's dialect, the contract's status, and a gateway that goes on. (M1, M2, reliability 3)"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.serving import Served, serving

CONFIG = """
listeners: [{port: 0}]
backends:
  demo: {type: echo}
"""
HELLO = b'"messages":[{"role":"user","content":"hello"}]'
DEEP = b'{"model":"echo","messages":' + b"[" * 100 + b"]" * 100 + b"}"
BIG = b'{"model":"echo","prompt":"' + b"x" * 50_000_000 + b'"}'

CHAT, OCHAT, RESPONSES = "/v1/chat/completions", "/api/chat", "/v1/responses"
TABLE = [
    # path, body, status, what the message says
    (CHAT, b"", 400, "missing request body"),
    (CHAT, b"{", 400, "not valid JSON"),
    (CHAT, b'{"model":"echo",' + HELLO + b"} x", 400, "Extra data"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"model":"echo"}', 400, "twice"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"seed":1e999}', 400, "finite"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"seed":99999999999999999999}', 400, "64 bits"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"user":"\xff"}', 400, "UTF-8"),
    (CHAT, b"[]", 400, ""),
    (CHAT, b"null", 400, ""),
    (CHAT, b'{"model":"echo"}', 400, "messages"),
    (CHAT, b'{"model":"echo","messages":[]}', 400, "messages"),
    (CHAT, b'{"model":7,' + HELLO + b"}", 400, "model"),
    (CHAT, b'{"model":"echo","messages":"hello"}', 400, "messages"),
    (CHAT, b'{"model":"echo","messages":[{"role":"wizard","content":"x"}]}', 400, "role"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"n":1000}', 400, "n"),
    (CHAT, b'{"model":"echo",' + HELLO + b',"temperature":"hot"}', 400, "temperature"),
    (CHAT, b'{"model":"none",' + HELLO + b"}", 404, "none"),
    (CHAT, DEEP, 400, "nested"),
    (CHAT, BIG, 413, "bytes"),
    ("/v1/completions", BIG, 413, "bytes"),
    ("/v1/embeddings", b'{"model":"echo"}', 400, "input"),
    ("/v1/embeddings", b'{"model":"echo","input":""}', 400, "input"),
    (RESPONSES, b"", 400, "missing request body"),
    (RESPONSES, b"{", 400, "not valid JSON"),
    (RESPONSES, b"[]", 400, ""),
    (RESPONSES, b'{"model":"echo"}', 400, "input"),
    (RESPONSES, b'{"model":"echo","input":7}', 400, "input"),
    (RESPONSES, b'{"model":"echo","input":[]}', 400, "input"),
    (RESPONSES, b'{"model":"echo","input":[null]}', 400, "input[0]"),
    (RESPONSES, b'{"model":"echo","input":[{"role":"wizard","content":"x"}]}', 400, "role"),
    (RESPONSES, b'{"model":"echo","input":[{"type":"function_call_output"}]}', 400, "call_id"),
    (RESPONSES, b'{"model":"echo","input":"x","max_output_tokens":-1}', 400, "max_output_tokens"),
    (RESPONSES, b'{"model":"echo","input":"x","previous_response_id":"no"}', 400, "not found"),
    (RESPONSES, b'{"model":"echo","input":"x","text":{"format":{"type":"xml"}}}', 400, "xml"),
    (RESPONSES, b'{"model":"none","input":"x"}', 404, "none"),
    (RESPONSES, b'{"model":"none","input":"x","background":true}', 404, "none"),
    (RESPONSES, DEEP.replace(b"messages", b"input"), 400, "nested"),
    (RESPONSES, BIG.replace(b"prompt", b"input"), 413, "bytes"),
    ("/v1/responses/input_tokens", b'{"model":"echo","input":"x"}', 501, "count"),
    ("/v1/responses/compact", b"{}", 501, "compact"),
    ("/v1/responses/resp_x/cancel", b"", 404, "resp_x"),
    ("/v1/nothing", b"{}", 404, "/v1/nothing"),
    (OCHAT, b"", 400, "missing request body"),
    (OCHAT, b"{", 400, ""),
    (OCHAT, b'{"messages":[]}', 400, "model is required"),
    (OCHAT, b'{"model":7,' + HELLO + b"}", 400, "cannot unmarshal number into"),
    (OCHAT, b'{"model":"echo","messages":[{"role":"user","content":["x"]}]}', 400, "cannot unmarshal array into"),
    (OCHAT, b'{"model":"echo",' + HELLO + b',"think":"loudly"}', 400, "invalid think value"),
    (OCHAT, b'{"model":"echo",' + HELLO + b',"format":"xml"}', 400, "invalid format"),
    (OCHAT, b'{"model":"echo",' + HELLO + b',"options":{"num_ctx":"big"}}', 400, "num_ctx"),
    (OCHAT, b'{"model":"none",' + HELLO + b"}", 404, "model 'none' not found"),
    (CHAT, b'{"model":"' + b"n" * 1_000_000 + b'",' + HELLO + b"}", 404, "n' not found"),
    (OCHAT, DEEP, 400, "nested"),
    (OCHAT, BIG, 413, "bytes"),
    ("/api/generate", b'{"prompt":"x"}', 404, "model '' not found"),
    ("/api/generate", b'{"model":"echo","prompt":"x","images":["%%%"]}', 400, "base64"),
    ("/api/embed", b'{"model":"none","input":"x"}', 404, 'model "none" not found, try pulling it first'),
    ("/api/show", b"{}", 400, "model is required"),
    ("/api/pull", b'{"model":"x"}', 501, ""),
    ("/api/nothing", b"{}", 404, "/api/nothing"),
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG) as served:
        yield served


def ask(gateway: Served, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
    """Status, content type, body."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.getheader("content-type") or "", response.read()
    finally:
        connection.close()


def message(path: str, body: bytes) -> str:
    """The message in the envelope of the path's dialect, whose every key is checked."""
    told = json.loads(body)
    if path.startswith("/api"):
        assert set(told) == {"error"}
        return str(told["error"])
    assert set(told) == {"error"}
    assert set(told["error"]) == {"message", "type", "param", "code"}
    return str(told["error"]["message"])


@pytest.mark.parametrize(("path", "body", "status", "says"), TABLE, ids=range(len(TABLE)))
def test_m1_m2_bad_input_is_refused_in_the_callers_dialect(
    gateway: Served, path: str, body: bytes, status: int, says: str
) -> None:
    got, kind, answer = ask(gateway, "POST", path, body)
    assert got == status, answer
    assert kind.startswith("application/json")
    assert says in message(path, answer)
    assert len(answer) < 2000  # whatever was sent is not sent back
    assert ask(gateway, "GET", "/health/live")[0] == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("DELETE", OCHAT), ("PUT", "/v1/models"), ("POST", "/api/tags"), ("HEAD", OCHAT)],
)
def test_a_wrong_method_is_405(gateway: Served, method: str, path: str) -> None:
    status, kind, answer = ask(gateway, method, path)
    assert status == 405
    assert kind.startswith("application/json")
    if method != "HEAD":
        assert "not allowed" in message(path, answer)


def test_nothing_of_it_was_a_defect_of_ours(gateway: Served) -> None:
    """Runs last: no request above fell through to the last resort."""
    assert "Traceback" not in gateway.log()
