"""Errors: ``{"error":name,"detail":text,"body":"","errors":text}``, as A1111 has them."""

from __future__ import annotations

from adapters.framing import encode_line
from canonical.errors import GatewayError


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    words = encode_line(error.message)
    return b'{"error":"HTTPException","detail":' + words + b',"body":"","errors":' + words + b"}"
