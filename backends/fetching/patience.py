"""How often a source that fails is asked again, and after what pauses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from adapters.upstream import retry_seconds
from backends.fetching.web import Astray
from backends.transport import Response, TlsFailed
from canonical.errors import BackendError, Busy, GatewayError

Sleep = Callable[[float], Awaitable[None]]

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST = 120.0
"""Seconds that a source may ask us to wait; beyond, the caller is told to come back."""
_PROGRESS = 64 * 1024
"""Bytes that a try must have brought for the count to begin again: a source that drips would go on for ever."""


class Pace(Struct, frozen=True, kw_only=True):
    """How downloads go about it. Tests have smaller figures and no pauses."""

    connections: int = 4
    part: int = 64 * 1024 * 1024
    """Bytes asked for at once."""
    block: int = 8 * 1024 * 1024
    """Bytes after which progress is made durable: what a kill costs, on each connection."""
    piece: int = 1024 * 1024
    """Bytes written at once."""
    reserve: int = 256 * 1024 * 1024
    """Bytes of disk that are left to others."""
    tries: int = 6
    """In a row without progress."""
    sleep: Sleep = asyncio.sleep


class Failed(Exception):
    """A try failed, and another one may not. ``pause``: what the source asked for."""

    def __init__(self, error: GatewayError, pause: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.pause = pause


class Denied(BackendError):
    """401: the source wants credentials, or others. ``challenge``: how it says so."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class Missing(BackendError):
    """404: the source has nothing of that name."""


def failed(error: BackendError) -> BackendError | Failed:
    """What to raise for a request without an answer: TLS that fails once will fail again, and so will what leads nowhere."""
    return error if isinstance(error, TlsFailed | Astray) else Failed(error)


class Patience:
    """Of one request, over its tries."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    async def after(self, failure: Failed, brought: int = 0) -> None:
        """Wait for the next try. Raises the failure when there have been enough."""
        if brought >= _PROGRESS:
            self._failures = 0
        self._failures += 1
        if self._failures >= self._pace.tries:
            raise failure.error from None
        if failure.pause is not None and failure.pause > _LONGEST:
            raise Busy(failure.error.message, retry_after=failure.pause) from None
        pause = min(30.0, 0.5 * 2 ** (self._failures - 1)) * (0.5 + random.random())  # noqa: S311  no secret
        await self._pace.sleep(max(pause, failure.pause or 0.0))


def judge(response: Response, who: str, what: str) -> GatewayError | Failed | None:
    """What a status means: None is success, Failed worth another try, an error final."""
    status = response.status
    if 200 <= status < 300:
        return None
    words = f"{who[:100]!r} answered with status {status} for {what}"
    if status in _AGAIN or status >= 500:
        return Failed(BackendError(words), retry_seconds(response.header(b"retry-after"), now=time.time()))
    if status == 401:
        return Denied(words, response.header(b"www-authenticate"))
    return Missing(words) if status == 404 else BackendError(words)
