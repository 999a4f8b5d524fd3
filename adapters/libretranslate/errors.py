"""Errors: ``{"error": text}``."""

from __future__ import annotations

from adapters.framing import encode_line
from canonical.errors import GatewayError


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    return b'{"error":' + encode_line(error.message) + b"}"
