"""Errors: ``{"status":"failed","error":text,"detail":text}``: the document has the first two, and its server's framework the last.

What is wrong with a request is a 422 there, and ``detail`` a list of places: {"type":"value_error","loc":["body","steps"],"msg":text}
"""

from __future__ import annotations

import re

from adapters.framing import encode_line
from adapters.images import wire
from adapters.reading import fault_of
from canonical.errors import GatewayError, InvalidRequest

UNPROCESSABLE = 422
MISSING = "missing"
_STEP = re.compile(r"[^.\[\]]+")


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own, but 422 for what is wrong with a request, as FastAPI has it."""
    return (
        UNPROCESSABLE if isinstance(error, InvalidRequest) and error.status == InvalidRequest.status else error.status
    )


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    words = error.message.encode(errors="replace").decode()  # a path's odd bytes come as lone surrogates
    if error_status(error) != UNPROCESSABLE:
        return encode_line(wire.Refused(error=words, detail=words))
    place, _, field = (error.param or "body").partition(":")
    where = [place, *_steps(field)] if field else ["body", *_steps(error.param or "")]
    kind = MISSING if error.code == MISSING else "value_error" if error.param else "json_invalid"
    return encode_line(wire.Invalid(error=words, detail=[wire.Fault(type=kind, loc=where, msg=words)]))


def invalid(text: str) -> InvalidRequest:
    """What the decoder found wrong with a body, and where."""
    fault = fault_of(text)
    words = "this is required" if fault.missing else fault.words
    code = MISSING if fault.missing else None
    return InvalidRequest(f"{fault.path}: {words}" if fault.path else words, param=fault.path or None, code=code)


def in_query(name: str, words: str) -> InvalidRequest:
    """A part of the query that is not what it should be."""
    return InvalidRequest(f"{name}: {words}", param=f"query:{name}")


def _steps(path: str) -> list[str | int]:
    """``loras[0].name`` step by step; the decoder's ``[...]`` says nothing."""
    return [int(step) if step.isdigit() else step for step in _STEP.findall(path)]
