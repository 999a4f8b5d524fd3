"""Errors, both ways: ``{"error":{"message":…,"type":…,"param":…,"code":…}}``, always all four keys.

Source: OpenAI's "Error codes" guide and the SDK's mapping of statuses to exceptions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from adapters.framing import encode_line
from adapters.openai import seen, wire
from adapters.upstream import failure_in, upstream_error
from canonical.errors import GatewayError, ModelNotFound

_TYPES = {403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
_TOO_LONG = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_STATUS_BY_TYPE = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "unavailable_error": 503,
}


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``: its own."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """The envelope of ``error``, also what stands in a stream's error frame."""
    if error.code == "insufficient_quota":
        kind = "insufficient_quota"
    else:
        kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    message, param = error.message, error.param
    if isinstance(error, ModelNotFound):
        param = param or "model"
        if "does not exist" not in message:
            what, hint, rest = message.partition(";")
            message = f"{what}: the model does not exist{hint}{rest}"  # agents search for either
    shown = wire.ErrorObject(message=message, type=kind, param=param, code=error.code)
    return b'{"error":' + encode_line(shown) + b"}"


def read_error(status: int, body: bytes, retry_after: str | None, *, now: float | None = None) -> GatewayError:
    """The error to raise for a backend's answer outside 2xx. ``now`` is as in ``upstream_error``."""
    try:
        found = failure_in(body)
    except msgspec.MsgspecError:
        # HTML of a proxy, or nothing: not for a client's eyes.
        return upstream_error(status, "", retry_after=retry_after, now=now)
    message, code = _words(found)
    return upstream_error(status, message, code, retry_after, now=now)


def in_band_error(error: Any) -> GatewayError:
    """The error to raise for what stands under ``error`` in a body of status 200."""
    message, code = _words(error)
    status = 502
    if isinstance(error, dict):
        number, kind = error.get("code"), error.get("type")
        if isinstance(number, int) and 400 <= number <= 599:
            status = number
        elif isinstance(number, str) and number.isdigit() and 400 <= int(number[:4]) <= 599:
            status = int(number)
        elif isinstance(kind, str):
            status = 400 if kind in _TOO_LONG or code in _TOO_LONG else _STATUS_BY_TYPE.get(kind, 502)
    return upstream_error(status, message or "the backend reported a failure", code)


def _words(error: Any) -> tuple[str, str | None]:
    """The message and code of an error in whatever shape a server gives it."""
    if isinstance(error, str):
        return error, None
    try:
        found = msgspec.convert(error, seen.ErrorObject, strict=False)
    except msgspec.ValidationError:
        return "", None
    code = found.code if isinstance(found.code, str) and not found.code.isdigit() else None
    message = found.message or ""
    if found.type in _TOO_LONG or code in _TOO_LONG:
        code = "context_length_exceeded"
        # llama-server's wording, said in the words that agents search for.
        if found.n_ctx is not None and "maximum context length" not in message:
            asked = f" However, you requested {found.n_prompt_tokens} tokens." if found.n_prompt_tokens else ""
            message = f"This model's maximum context length is {found.n_ctx} tokens.{asked}"
    elif code is None and found.type == "insufficient_quota":
        code = "insufficient_quota"
    return message, code
