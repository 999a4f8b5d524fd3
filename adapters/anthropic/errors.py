"""Errors, both ways: ``{"type":"error","error":{"type":…,"message":…}}``.

Source: Anthropic's "Errors" page. The SDKs choose the exception by the status alone; ``type`` is for people and for agents,
who look for ``overloaded_error`` and for the words "prompt is too long".
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from adapters.anthropic import wire
from adapters.framing import encode_line
from adapters.upstream import failure_in, upstream_error
from canonical.errors import GatewayError, ModelNotFound, NotImplementedHere

TOO_LONG = "prompt is too long"
"""Claude Code compacts its conversation when it reads this."""

_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUS_BY_TYPE = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 503,
    "timeout_error": 504,
}
_NAMED = re.compile(r"model '(.*)' not found", re.DOTALL)
_ASKED = re.compile(r"(?:request|requested) \(?(\d+) tokens")
_LIMIT = re.compile(r"(?:maximum context length is|available context size \(?)\s*(\d+) tokens")


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The envelope of ``error``, also what stands in a stream's error frame."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    # A path's odd bytes come as lone surrogates, which have no UTF-8.
    message = _words(error).encode(errors="replace").decode()
    return b'{"type":"error","error":' + encode_line(wire.ErrorObject(kind, message)) + b"}"


def read_error(status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """The error to raise for a backend's answer outside 2xx, whatever its body is."""
    try:
        found = failure_in(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # HTML of a proxy, or nothing: not for a client's eyes.
        return upstream_error(status, "", retry_after=retry_after)
    _, message = _told(found)
    if status == 501:
        return NotImplementedHere(message or "the backend cannot do this")
    status = 503 if status == 529 else status
    return upstream_error(status, message, _code(message), retry_after)


def in_band_error(error: Any) -> GatewayError:
    """The error to raise for what stands under ``error`` in a stream, or in a body of status 200."""
    kind, message = _told(error)
    status = _STATUS_BY_TYPE.get(kind, 502)
    return upstream_error(status, message or "the backend reported a failure", _code(message))


def _words(error: GatewayError) -> str:
    if isinstance(error, ModelNotFound):
        named = _NAMED.fullmatch(error.message)
        return f"model: {named[1]}" if named else error.message
    if error.code != "context_length_exceeded" or TOO_LONG in error.message:
        return error.message
    asked, limit = _ASKED.search(error.message), _LIMIT.search(error.message)
    if asked and limit:
        return f"{TOO_LONG}: {asked[1]} tokens > {limit[1]} maximum"
    return f"{TOO_LONG}: {error.message}"


def _code(message: str) -> str | None:
    return "context_length_exceeded" if TOO_LONG in message else None


def _told(error: Any) -> tuple[str, str]:
    """The type and message of an error in whatever shape a server gives it."""
    if isinstance(error, str):
        return "", error
    try:
        found = msgspec.convert(error, wire.SeenError, strict=False)
    except msgspec.ValidationError:
        return "", ""
    return found.type or "", found.message or ""
