"""One answer on its way out of an HTTP/1.1 connection: what uvicorn calls a cycle, with fewer writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent


DEPARTURE = "dragoman.departure"
"""The scope's extension under which an application finds its ``Departure``."""


class Departure:
    """Tells one listener that the client has left. It knows no connection: a scope that did would be a cycle."""

    __slots__ = ("_gone", "_listener")

    def __init__(self) -> None:
        self._gone = False
        self._listener: Callable[[], None] | None = None

    def watch(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when the client leaves, or now when it has left."""
        if self._gone:
            listener()
        else:
            self._listener = listener

    def unwatch(self) -> None:
        """Nobody wants to know any more."""
        self._listener = None

    def tell(self) -> None:
        """The client has left."""
        self._gone = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener()


class Cycle(RequestResponseCycle):
    """One request's answer. Its head goes out together with the first piece of its body: one write, not two.

    HTTP 1.0 knows no chunks: there the end of the connection ends a body without a length.
    """

    departure: Departure
    head = b""
    """What is not written yet."""
    unframed = False
    refused = False
    """Whether the answer is an error."""
    unread = 0.0
    """Seconds for which a client may leave unread what has been written."""

    def leave(self) -> None:
        """The client is gone, or will not be listened to."""
        if not self.response_complete:
            self.disconnected = True
            self.message_event.set()
            self.departure.tell()

    async def send(self, message: ASGISendEvent) -> None:
        """Take one message of the application; waits while the client does not read, but not for ever.

        What runs for it holds a slot of a model, and keeps out who waits for another one.
        """
        if self.flow.write_paused and not self.disconnected:
            try:
                async with asyncio.timeout(self.unread):
                    await self.flow.drain()
            except TimeoutError:
                self.leave()
                self.transport.abort()
        if self.disconnected:
            return
        if message["type"] == "http.response.body":
            if not self.response_started or self.response_complete:
                raise RuntimeError("a body outside of an answer")
            self._write(message.get("body", b""), last=not message.get("more_body", False))
        elif message["type"] == "http.response.start":
            if self.response_started:
                raise RuntimeError("a second answer")
            self._begin(message)
        else:
            raise RuntimeError(f"a message that HTTP does not have: {message['type']}")

    def _begin(self, message: HTTPResponseStartEvent) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        self.refused = status >= 400
        length = None
        closing = False
        lines = [STATUS_LINE[status]]
        for name, value in (*self.default_headers, *message.get("headers", ())):
            if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
                raise RuntimeError(f"a header that HTTP does not allow: {name!r}")
            name = name.lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closing = b"close" in value.lower()
            lines.append(b"%b: %b\r\n" % (name, value))
        if closing or not self.keep_alive:
            self.keep_alive = False
            if not closing:
                lines.append(b"connection: close\r\n")
        self.chunked_encoding = False
        if length is not None:
            self.expected_content_length = length
        elif self.scope["http_version"] == "1.0":
            self.unframed = True
        elif self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self.head = b"".join(lines)

    def _write(self, body: bytes, *, last: bool) -> None:
        if self.scope["method"] == "HEAD":
            data = b""
            self.expected_content_length = 0
        elif self.chunked_encoding:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if last:
                data += b"0\r\n\r\n"
        else:
            data = body
            if not self.unframed:
                self.expected_content_length -= len(body)
                if self.expected_content_length < 0 or (last and self.expected_content_length):
                    raise RuntimeError("the body has another length than announced")
        if self.head:
            data = self.head + data
            self.head = b""
        if data:
            self.transport.write(data)
        if last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
