"""Errors: ``{"error": text}``, with the status that each has everywhere.

The document has three of these: 400 for no model, 404 for an unknown one, 500 for a failure of the server. Those that it does
not know say more of the same kind, as that a model's own server failed (502) or that coming back helps (503).
"""

from __future__ import annotations

from adapters.framing import encode_line
from canonical.errors import GatewayError


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    return b'{"error":' + encode_line(error.message) + b"}"
