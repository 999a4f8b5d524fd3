"""Errors: ``{"detail": text}``, and for a body that breaks the format ``{"detail": [{type, loc, msg}]}`` with status 422.

Both are FastAPI's, in which this API was written: its clients, those made by a generator above all, tell the two apart by the status.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from adapters.framing import encode_line
from adapters.hybrid import wire
from adapters.reading import fault_of
from canonical.errors import BackendUnavailable, GatewayError, InvalidRequest, ModelNotFound

UNPROCESSABLE = 422
NO_MODEL = "Chat service unavailable: No model loaded"
_STEP = re.compile(r"[^.\[\]]+")


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own, but 503 for a server that is not there, as this API has always said it."""
    return 503 if isinstance(error, BackendUnavailable) else error.status


def error_body(error: GatewayError) -> bytes:
    """The body of a refused request."""
    if error.status == UNPROCESSABLE:
        kind = "missing" if error.code == "missing" else "value_error" if error.param else "json_invalid"
        fault = wire.Fault(type=kind, loc=["body", *_steps(error.param or "")], msg=_clean(error.message))
        return encode_line(wire.Invalid([fault]))
    return encode_line(wire.Refused(words(error)))


def words(error: GatewayError) -> str:
    """What went wrong, for people."""
    if isinstance(error, BackendUnavailable) and error.reason:
        return f"Could not connect to {error.server}: {error.reason[:1].upper()}{error.reason[1:]}"
    return _clean(error.message)


def reason(error: GatewayError) -> str:
    """Why a model could not be loaded, or unloaded."""
    return "Model not found" if isinstance(error, ModelNotFound) else words(error)


def invalid(text: str) -> InvalidRequest:
    """What the decoder found wrong, and where."""
    fault = fault_of(text)
    if fault.missing:
        return InvalidRequest("Field required", param=fault.path, code="missing")
    return InvalidRequest(fault.words, param=fault.path or None)


@contextmanager
def of_the_body() -> Iterator[None]:
    """What is raised in here is the fault of the request's body."""
    try:
        yield
    except InvalidRequest as error:
        if type(error) is InvalidRequest:
            error.status = UNPROCESSABLE
        raise


def _steps(path: str) -> list[str | int]:
    """``messages[0].content`` step by step; the decoder's ``[...]`` says nothing."""
    return [int(step) if step.isdigit() else step for step in _STEP.findall(path)]


def _clean(text: str) -> str:
    """A path's odd bytes come as lone surrogates, which have no UTF-8."""
    return text.encode(errors="replace").decode()
