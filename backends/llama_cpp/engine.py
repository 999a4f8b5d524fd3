"""What both engines of llama.cpp are behind: OpenAI-shaped JSON in, OpenAI-shaped chunks out, blocking.

Both speak JSON bytes, so that either can run in the gateway's process or in a worker, and so that one reader (the
client half of the OpenAI adapter) reads both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest, Unsupported

Kind = Literal["chat", "completion", "count"]
"""``count`` takes the body of a chat, and answers one chunk of how many tokens its prompt has."""
Emit = Callable[[bytes], bool]
"""Takes one chunk; True means stop."""


class Start(Struct, frozen=True, kw_only=True):
    """One model and how to run it: all that an engine is told."""

    path: str
    projector: str = ""
    embedding: bool = False
    ranking: bool = False
    threads: int = 1
    context: int = 4096
    """Tokens per slot."""
    slots: int = 1
    batch: int = 512
    gpu_layers: int = 0
    flash_attention: bool | None = None


class Engine(Protocol):
    """A loaded model. Every method blocks; ``stream`` may run in ``Start.slots`` threads at once."""

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        """Answer an OpenAI request body chunk by chunk: JSON without framing; an error is ``{"error": ...}``."""

    def embed(self, body: bytes) -> bytes:
        """Answer an OpenAI embeddings body."""

    def rerank(self, body: bytes) -> bytes:
        """Answer the body of ``/v1/rerank``."""

    def close(self) -> None:
        """Free the memory; nothing runs any more."""


class Counted(Struct, frozen=True):
    """The chunk that answers a count."""

    prompt_tokens: int


read_counted = msgspec.json.Decoder(Counted).decode


class _Failure(Struct):
    message: str = ""
    code: int | str | None = None
    type: str | None = None
    n_ctx: int | None = None


class _Failed(Struct):
    error: _Failure = msgspec.field(default_factory=_Failure)


_failed = msgspec.json.Decoder(_Failed)
_ERROR = b'{"error":'


def is_error(chunk: bytes) -> bool:
    """Whether a chunk tells of a failure instead of a piece of the answer."""
    return chunk.startswith(_ERROR)


def write_error(status: int, message: str, kind: str = "invalid_request_error", *, context: int = 0) -> bytes:
    """A failure as a chunk, in the shape that llama.cpp's own server has."""
    failure = _Failure(message=message, code=status, type=kind, n_ctx=context or None)
    return msgspec.json.encode(_Failed(failure))


def read_error(chunk: bytes, *, context: int) -> GatewayError:
    """A failure's chunk as our error. ``context``: tokens a slot has, for the message."""
    try:
        failure = _failed.decode(chunk).error
    except msgspec.MsgspecError:
        return BackendError("the engine answered an error that cannot be read")
    status = failure.code if isinstance(failure.code, int) else 500
    message = failure.message or "the engine failed"
    if failure.type == "exceed_context_size_error" or "context size" in message:
        limit = failure.n_ctx or context
        text = f"This model's maximum context length is {limit} tokens, and the request has more: {message}"
        return InvalidRequest(text, code="context_length_exceeded", param="messages")
    if status == 501:
        return Unsupported(message)
    if status in {429, 503}:
        return Busy(message, retry_after=1)
    if 400 <= status < 500:
        return InvalidRequest(message)
    if "grammar stack" in message:
        return InvalidRequest("no token of this model can follow the grammar here", param="grammar")
    return BackendError(f"the engine failed: {message}")
