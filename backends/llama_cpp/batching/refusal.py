"""A request that cannot be answered."""

from __future__ import annotations

from backends.llama_cpp.engine import write_error


class Refused(Exception):
    """It is the request's fault, or what the model lacks; the chunk says why."""

    def __init__(self, status: int, message: str, *, context: int = 0) -> None:
        super().__init__(message)
        kind = "exceed_context_size_error" if context else "invalid_request_error"
        self.chunk = write_error(status, message, kind, context=context)
