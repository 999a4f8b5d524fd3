r"""SSE and NDJSON: cut bytes into records, wrap a record in bytes.

Lines end at ``\n`` alone: U+2028 and U+0085 are legal inside JSON strings, and readers that split on them lose text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from canonical.errors import BackendError

RECORD_LIMIT = 8 * 1024 * 1024
"""Bytes of one frame from a backend."""


_encode = msgspec.json.Encoder().encode


def encode_line(value: Any) -> bytes:
    """JSON that no reader of lines can cut, not even one that splits on U+0085, U+2028 and U+2029."""
    return escape_lines(_encode(value))


def escape_lines(data: bytes) -> bytes:
    """JSON with those three characters as escapes: the official Ollama client for Python splits on them."""
    if data.isascii():
        return data
    return (
        data.replace(b"\xc2\x85", b"\\u0085").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    )


class LineReader:
    r"""Bytes in any slices -> whole lines without their end. A last line without ``\n`` is never passed on."""

    __slots__ = ("_limit", "_rest", "_size")

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._limit = limit
        self._rest: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes.

        Raises:
            BackendError: a line exceeds the limit.
        """
        lines = data.split(b"\n")
        last = lines.pop()
        if lines:
            if self._rest:
                self._rest.append(lines[0])
                lines[0] = b"".join(self._rest)
            self._rest.clear()
            self._size = 0
        if last:
            self._rest.append(last)
            self._size += len(last)
            if self._size > self._limit:
                raise _too_long(self._limit)
        return lines


class SseReader:
    """Bytes in any slices -> (event name, data) of each event that its blank line has ended.

    A ``data`` line that is followed by no blank line is a half frame and dropped.
    """

    __slots__ = ("_between", "_data", "_event", "_limit", "_lines", "_size")

    def __init__(self, limit: int = RECORD_LIMIT) -> None:
        self._limit = limit
        self._between = True
        self._lines = LineReader(limit)
        self._event = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The events that ``data`` completes; comments, unknown fields and events without data are skipped.

        Raises:
            BackendError: an event exceeds the limit.
        """
        if (
            self._between
            and data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= self._limit
        ):
            ends = data.count(b"\n")
            if ends == 2:
                return [(b"", data[6:-2])] if len(data) > 8 else []
            whole = data[6:-2].split(b"\n\ndata: ")
            # The usual case: nothing but one-line events, as the count of line ends proves.
            if ends == 2 * len(whole):
                return [(b"", event) for event in whole if event]
        events: list[tuple[bytes, bytes]] = []
        for line in self._lines.feed(data):
            if line.endswith(b"\r"):
                line = line[:-1]
            if not line:
                if self._data:
                    event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    if event or self._event == b"error":
                        events.append((self._event, event))
                    self._data = []
                    self._size = 0
                self._event = b""
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
                self._size += len(line) + 1
                if self._size > self._limit and len(self._data) > 1:
                    raise _too_long(self._limit)
            elif line.startswith(b"event:"):
                self._event = line[6:].strip()
            elif line.startswith(b"error:"):
                # llama-server's failures before late 2025.
                self._event = b"error"
                self._data.append(line[6:].strip())
        self._between = not (self._data or self._event or self._lines.pending)
        return events


def _too_long(limit: int) -> BackendError:
    return BackendError(f"the backend sent a frame of more than {limit} bytes")
