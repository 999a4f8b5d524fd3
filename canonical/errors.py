"""The one error tree. Each error knows its HTTP status and code, and no wire format.

    GatewayError 500
     ├ InvalidRequest 400 ─ Unsupported · NoModelLoaded · TooLarge 413 · UnsupportedMedia 415
     ├ Unauthorized 401 · Forbidden 403
     ├ NotFound 404 ─ ModelNotFound · NoRoute ─ MethodNotAllowed 405
     ├ RequestTimeout 408
     ├ Conflict 409
     ├ Busy 503 (retry_after) · OutOfMemory 503
     ├ NotImplementedHere 501
     ├ StorageFailed 507
     └ BackendError 502 ─ BackendUnavailable 502 · BackendTimeout 504 · WorkerDied 502

A dialect turns one into bytes with its own ``error_body``; it may override a status with a small table.
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Something failed, and the message says what in words meant for the caller.

    ``param`` names the request field at fault. ``retry`` says whether the same request may succeed later;
    ``retry_after`` is that pause in seconds.
    """

    status: int = 500
    code: str | None = None
    retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidRequest(GatewayError):
    """The request itself is wrong; sending it again changes nothing."""

    status, code = 400, "invalid_value"


class Unsupported(InvalidRequest):
    """The model or backend cannot do what is asked."""

    code = "unsupported_value"


class NoModelLoaded(InvalidRequest):
    """The caller named no model and none is loaded."""

    code = "no_model_loaded"


class TooLarge(InvalidRequest):
    """The body exceeds its limit."""

    status, code = 413, "request_too_large"


class UnsupportedMedia(InvalidRequest):
    """The body comes in an encoding that is not accepted."""

    status, code = 415, "unsupported_media_type"


class Unauthorized(GatewayError):
    """No key, or a wrong one."""

    status, code = 401, "invalid_api_key"


class Forbidden(GatewayError):
    """The caller may not do this: a foreign origin, a rebound host name, a key that may only use models."""

    status, code = 403, "forbidden"


class NotFound(GatewayError):
    """No such route or object."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """No backend serves a model of this name."""

    code = "model_not_found"


class NoRoute(NotFound):
    """Nothing is served on this path."""


class MethodNotAllowed(NoRoute):
    """The route exists, with another method."""

    status, code = 405, "method_not_allowed"


class RequestTimeout(GatewayError):
    """The client took too long to send its request."""

    status, code = 408, "request_timeout"


class Conflict(GatewayError):
    """The object's state forbids this."""

    status, code = 409, "conflict"


class Busy(GatewayError):
    """The queue is full, or the wait was too long."""

    status, code, retry = 503, "server_busy", True


class OutOfMemory(GatewayError):
    """The model does not fit into memory."""

    status, code = 503, "out_of_memory"


class NotImplementedHere(GatewayError):
    """A real feature of the dialect that this gateway does not have."""

    status, code = 501, "not_implemented"


class StorageFailed(GatewayError):
    """What was to be kept cannot be: the disk is full, or the store is damaged."""

    status, code = 507, "insufficient_storage"


class BackendError(GatewayError):
    """The backend failed, or answered something that is not its format."""

    status, code = 502, "backend_error"


class BackendUnavailable(BackendError):
    """The backend refused the connection or cannot be reached."""

    code, retry = "backend_unavailable", True
    server: str = ""
    """What people call the server, where no connection to it could be made."""
    reason: str = ""
    """Why, in the system's words."""


class BackendTimeout(BackendError):
    """The backend was silent past a limit."""

    status, code = 504, "backend_timeout"


class WorkerDied(BackendError):
    """The process that a model ran in has ended in the middle of the work: another one may do better."""


def shutting_down() -> Busy:
    """What everybody gets who comes while the process ends: whoever comes back meets the next one."""
    return Busy("the gateway is shutting down", retry_after=5)
