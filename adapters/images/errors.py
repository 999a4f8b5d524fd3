"""Errors: ``{"status":"failed","error":text,"detail":text}``: the document has the first two, and its server's framework the last."""

from __future__ import annotations

from adapters.framing import encode_line
from canonical.errors import GatewayError


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    words = encode_line(error.message)
    return b'{"status":"failed","error":' + words + b',"detail":' + words + b"}"
