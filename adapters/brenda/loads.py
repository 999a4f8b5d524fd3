"""The stream of ``/v1/models/{model}/load``: a download where one is needed, then the load.

    data: {"progress":0.45}

    data: {"status":"completed"}

    data: {"status":"loaded"}

Progress goes from 0 to 1 for the download, and again for the load where somebody tells how far it is. What is on disk begins
with ``{"status":"exists"}``; what fails ends with ``{"error":"..."}``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters.brenda import wire
from adapters.framing import encode_line
from canonical.errors import GatewayError
from canonical.progress import Progress

SHARES = 1000
"""Steps that are told of one piece of work at most."""


class LoadStream:
    """Steps of a download or a load -> events. What is told never goes back, although a download's size is known bit by bit."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = b": \n\n"
    """For who waits where nobody tells anything: readers pass it over."""

    __slots__ = ("_parts", "_told")

    def __init__(self) -> None:
        self._parts: dict[str, tuple[int, int]] = {}
        self._told = -1

    def feed(self, step: Progress) -> bytes:
        """The event of one step; nothing where it is no news."""
        if not step.total:
            return b""
        self._parts[step.digest] = (step.completed, step.total)
        done, total = map(sum, zip(*self._parts.values(), strict=True))
        return self._tell(min(int(SHARES * done / total), SHARES))

    def end(self, status: Literal["exists", "completed", "loaded"]) -> bytes:
        """A piece of work is over. One of which something was told, and not the end of it, is told to be at its end."""
        last = self._tell(SHARES) if self._told >= 0 else b""
        self._parts, self._told = {}, -1
        return last + _event(wire.Status(status))

    @staticmethod
    def fail(error: GatewayError) -> bytes:
        """The last event of what has failed."""
        return _event(wire.Error(error.message))

    def _tell(self, share: int) -> bytes:
        if share <= self._told:
            return b""
        self._told = share
        return _event(wire.Progress(share / SHARES))


def _event(value: wire.Progress | wire.Status | wire.Error) -> bytes:
    return b"data: " + encode_line(value) + b"\n\n"
