"""What a backend's failure means for our client: one table for every wire format.

400 413 422   the same: the request is at fault, and the reason is worth passing on
429 503       the same, with the pause the backend asks for
401 403       502: our key is wrong, which is the operator's business and not the client's
404           404 when it speaks of a model, else 502
409           the same: the model or object cannot be changed as it is
500 502 504   the same
anything else 502, redirects included
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from canonical.errors import BackendError, BackendTimeout, Busy, Conflict, GatewayError, InvalidRequest, ModelNotFound

RETRY_AFTER_LIMIT = 3600
"""Seconds: a longer pause is not believed."""
MESSAGE_LIMIT = 2000
"""Characters of a backend's message that are passed on."""


class _Body(msgspec.Struct):
    error: Any = None
    message: Any = None
    detail: Any = None


_body = msgspec.json.Decoder(_Body)


def failure_in(body: bytes) -> Any:
    """What stands for the failure in the body of a backend's error: servers put it in one of three places; None: nowhere.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: it is not JSON, or no object: a proxy's page, or nothing.
    """
    found = _body.decode(body)
    return next((item for item in (found.error, found.message, found.detail) if item), None)


def upstream_error(
    status: int,
    message: str,
    code: str | None = None,
    retry_after: str | None = None,
    *,
    now: float | None = None,
) -> GatewayError:
    """The error to raise for a backend's answer of ``status``.

    Args:
        status: the HTTP status, or the one an in-band error names.
        message: the backend's own words; may be empty.
        code: the backend's own code; None for that of the error's class.
        retry_after: the ``Retry-After`` header as it came.
        now: epoch seconds, needed only to understand a ``Retry-After`` that is a date.
    """
    message = message.strip()[:MESSAGE_LIMIT] or f"the backend answered with status {status}"
    match status:
        case 400 | 413 | 422:
            return InvalidRequest(message, status=status, code=code)
        case 429 | 503:
            pause = retry_seconds(retry_after, now=now)
            default = "rate_limit_exceeded" if status == 429 else "backend_unavailable"
            return Busy(message, status=status, code=code or default, retry_after=pause)
        case 401 | 403:
            # Not the backend's words: they may quote the key.
            return BackendError("the backend refused the gateway's credentials", code="backend_credentials")
        case 404 if code == "model_not_found" or "model" in message.lower():
            return ModelNotFound(message, param="model")
        case 409:
            return Conflict(message, code=code)
        case 504:
            return BackendTimeout(message, code=code)
        case 500 | 502:
            return BackendError(message, status=status, code=code)
        case _:
            return BackendError(message if status >= 400 else f"the backend answered with status {status}")


def retry_seconds(value: str | None, *, now: float | None = None) -> float | None:
    """The pause that a ``Retry-After`` header asks for, in seconds; None if it has none or none of sense.

    A date counts from ``now`` (epoch seconds) and is ignored without it.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        if now is None:
            return None
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and 0 <= seconds <= RETRY_AFTER_LIMIT else None
