"""Errors: ``{"error":{"type":…,"message":…,"code":…,"param":…}}``, the last two where they are known.

A path or method that there is not gets ``{"error":"Unexpected endpoint or method. (GET /x)"}``. LM Studio sends that with
status 200, so that whoever probes for an ability by its status believes in it: here the status says what is the case.
"""

from __future__ import annotations

from adapters.framing import encode_line
from adapters.lmstudio import wire
from canonical.errors import GatewayError, ModelNotFound, NoRoute, NotImplementedHere

JOB_NOT_FOUND = "job_not_found"
"""The code of an error about a download that there is not."""


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    if isinstance(error, NoRoute):
        return b'{"error":' + encode_line(_clean(error.message)) + b"}"
    return b'{"error":' + encode_line(error_object(error)) + b"}"


def error_object(error: GatewayError) -> wire.ErrorObject:
    """What stands under ``error``, also in a stream."""
    return wire.ErrorObject(
        type=_type(error), message=_clean(error.message), code=error.code, param=error.param and _clean(error.param)
    )


def stray(method: str, path: str) -> str:
    """The words for a path or a method that there is not."""
    return f"Unexpected endpoint or method. ({method} {path})"


def _type(error: GatewayError) -> str:
    if isinstance(error, ModelNotFound):
        return "model_not_found"
    if error.code == JOB_NOT_FOUND:
        return JOB_NOT_FOUND
    if isinstance(error, NotImplementedHere):
        return "not_implemented"
    return "invalid_request" if error.status < 500 else "internal_error"


def _clean(text: str) -> str:
    """A path's odd bytes come as lone surrogates, which have no UTF-8."""
    return text.encode(errors="replace").decode()
