"""Errors: ``{"error": text}``."""

from __future__ import annotations

from adapters.framing import encode_line
from canonical.errors import GatewayError, Unauthorized


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own, but for keys; clients know a wrong one by 403."""
    return 403 if isinstance(error, Unauthorized) else error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    words = f"{error.message}, or api_key in the body" if isinstance(error, Unauthorized) else error.message
    return b'{"error":' + encode_line(words) + b"}"
