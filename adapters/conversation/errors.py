"""Errors as FastAPI words them: ``{"detail":text}``, and for a request that cannot be read, with status 422, a list of places.

{"detail":[{"type":"missing","loc":["query","conv_id"],"msg":"Field required"}]}
"""

from __future__ import annotations

from adapters.conversation import wire
from adapters.framing import encode_line
from adapters.reading import fault_of
from canonical.errors import Conflict, GatewayError, InvalidRequest

UNREADABLE = 422


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own; but that an id is taken has always been a 400 of this service."""
    return 400 if isinstance(error, Conflict) else error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    message = error.message.encode(errors="replace").decode()  # a path's odd bytes come as lone surrogates
    if error.status != UNREADABLE:
        return b'{"detail":' + encode_line(message) + b"}"
    place = wire.Place(error.code or "value_error", list((error.param or "body").split(".")), message)
    return encode_line(wire.Invalid([place]))


def missing(place: str) -> InvalidRequest:
    """What has to be there is not; ``place`` is ``query.conv_id`` and the like."""
    return unreadable("Field required", place, "missing")


def unreadable(words: str, place: str, kind: str = "value_error") -> InvalidRequest:
    """A part of the request that is not what it should be."""
    return InvalidRequest(words, param=place, code=kind, status=UNREADABLE)


def invalid(text: str) -> InvalidRequest:
    """What the decoder found wrong with a body, and where."""
    fault = fault_of(text)
    if fault.missing:
        return missing(f"body.{fault.path}")
    return unreadable(fault.words, f"body.{fault.path}" if fault.path else "body")
