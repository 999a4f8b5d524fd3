"""One HTTP/1.1 connection to a backend and the one response on it at a time; the pool of them is in ``transport``.

``httptools`` parses, this adds what a parser leaves out: deadlines, limits on every size, back pressure, and the
truth about how a response ended. Nothing is decompressed: a backend that compresses although it was told not to is
at fault, and so no small answer can grow.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Protocol, cast

import httptools
from msgspec import Struct

from canonical.errors import BackendError, BackendTimeout, GatewayError

_NO_BODY = frozenset({204, 304})


class Limits(Struct, frozen=True, kw_only=True):
    """How long a backend may take, in seconds, and how much it may send, in bytes."""

    connect: float = 5.0
    """Name look-up, TCP and TLS together."""
    first_byte: float = 300.0
    """From the request to the first byte of the answer's *body*: servers that send the head at once and then
    process a long prompt are no stalled servers."""
    idle: float = 60.0
    """Between two reads after that."""
    total: float = 1800.0
    keep: float = 2.0
    """A connection is used again only while idle for less: servers close idle ones after 5 s or so, and a request
    that crosses such a close on the wire may or may not have been processed."""
    linger: float = 1.0
    """For the rest of an answer that is no longer wanted, so that its connection can be kept."""
    connections: int = 2048
    waiting: int = 512
    """Requests that wait for a connection once all are busy."""
    wait: float = 60.0
    """How long they do."""
    head: int = 64 * 1024
    """Of the head; and of anything later that is not content: chunk extensions, trailers."""
    reply: int = 64 * 1024 * 1024
    """On the wire, framing included."""
    buffer: int = 256 * 1024
    """Unread content at which reading from the socket pauses."""


class Keeper(Protocol):
    """Whoever owns connections."""

    def returned(self, connection: Connection) -> None:
        """Its response is complete and it may serve another request."""

    def lost(self, connection: Connection) -> None:
        """It is closed; told at most once."""


class Response:
    """What the backend answers: the head, then the body as it arrives.

    The reader is one task. Whoever does not read to the end calls ``close`` or ``drain``.
    """

    __slots__ = (
        "_begun", "_buffer", "_clock", "_complete", "_connection", "_draining", "_dry", "_error", "_head_only", "_head_size",
        "_interim", "_keep", "_last", "_limits", "_loop", "_name", "_parser", "_paused", "_size", "_timer",
        "_total_at", "_until_close", "_waiter", "_wire", "headers", "sending", "status",
    )  # fmt: skip

    def __init__(self, connection: Connection, *, name: str, limits: Limits, head_only: bool = False) -> None:
        self.status = 0
        """0 until the head is complete."""
        self.headers: dict[bytes, bytes] = {}
        """By lower-case name; the last of equal names counts."""
        self.sending = False
        """Whether the request is still on its way: its connection cannot be kept then."""
        self._connection: Connection | None = connection
        self._name = name
        self._limits = limits
        self._head_only = head_only
        self._parser = httptools.HttpResponseParser(self)
        self._buffer: list[bytes] = []
        self._size = self._head_size = self._dry = self._wire = 0
        self._begun = self._complete = self._interim = self._paused = self._draining = self._until_close = False
        self._keep = True
        self._error: GatewayError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = loop = connection.loop
        self._clock: Callable[[], float] = loop.time
        self._last = now = self._clock()
        self._total_at = now + limits.total
        # One timer a response, which looks at the last read when it fires: a timer moved at each read costs 1 us.
        self._timer = loop.call_at(now + min(limits.first_byte, limits.idle, limits.total), self._tick)

    # The reader's side.

    def header(self, name: bytes) -> str:
        """The value of a header by its lower-case name, or an empty text."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def answered(self) -> bool:
        """Whether its head has come, or never will."""
        return bool(self.status) or self._error is not None

    def alive(self) -> None:
        """The backend has taken more of the request: its patience with us is not tried, nor ours with it."""
        self._last = self._clock()

    async def head(self) -> None:
        """Wait for the head. Raises BackendError, BackendTimeout."""
        while not self.status and self._error is None:
            await self._wait()
        if self._error is not None and not self.status:
            raise self._error

    async def read(self) -> bytes:
        """What has arrived since the last call, at least one byte; ``b""`` at the end.

        Raises:
            BackendError: the body ended early, is malformed, or exceeds a limit.
            BackendTimeout: nothing came for too long.
        """
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._complete:
                return b""
            await self._wait()
        return self._take()

    async def body(self, limit: int | None = None) -> bytes:
        """The rest of the body; raises as ``read`` does, and BackendError when it has more than ``limit`` bytes."""
        pieces = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size > limit:
                self.close()
                raise BackendError(f"backend {self._name!r} answered with more than {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Let go; an unfinished response takes its connection with it, at once, so that the backend stops working."""
        if self._connection is not None and not self._draining:
            self._fail(BackendError(f"the answer of backend {self._name!r} was closed before its end"))
        self._buffer.clear()

    def drain(self) -> None:
        """Let go of a response of which the best part is read; its short rest, if it comes soon, is thrown away."""
        self._buffer.clear()
        self._size = 0
        if self._connection is not None and not self._draining:
            self._draining = True
            self._wire = max(self._wire, self._limits.reply - self._limits.head)  # so much more, then it is cut off
            self._total_at = self._clock() + self._limits.linger
            self._timer.cancel()
            self._timer = self._loop.call_at(self._total_at, self._tick)
            self._resume()

    # The connection's side.

    def received(self, data: bytes) -> None:
        """Take what one read from the socket gave."""
        self._last = self._clock()
        self._wire += len(data)
        before = self._size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # After the message's end: bytes that nobody asked for. The answer stands, the connection does not.
            self._keep = False
            if not self._complete:
                cause = error.__context__
                self._fail(cause if isinstance(cause, GatewayError) else self._malformed(str(error)))
                return
        if self._complete:
            self._end()
        elif self._size == before:
            # Until the head is complete this counts the head and what is sent before it (1xx); later, the framing.
            self._dry += len(data)
            if self._dry > self._limits.head:
                self._fail(self._malformed("its head or its framing is endless"))
                return
        else:
            self._begun = True
            self._dry = 0
        if self._wire > self._limits.reply and not self._complete:
            self._fail(BackendError(f"backend {self._name!r} answered with more than {self._limits.reply} bytes"))
        elif self._draining:
            self._buffer.clear()
            self._size = 0
        elif self._size > self._limits.buffer and self._connection is not None and not self._paused:
            self._paused = True
            self._connection.pause()
        if self._waiter is not None and (self._buffer or self._complete or self.status):
            self._wake()

    def lost(self) -> None:
        """The connection is gone."""
        if self._until_close:
            self._complete, self._keep = True, False
            self._end()
            self._wake()
        elif self.status:
            self._fail(BackendError(f"backend {self._name!r} closed the connection in the middle of its answer"))
        else:
            self._fail(BackendError(f"backend {self._name!r} closed the connection without an answer"))

    # The parser's side.

    def on_message_begin(self) -> None:
        """A status line begins."""
        if self._complete:
            raise BackendError("bytes after the end")
        self._interim = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: those are not looked at."""
        if not self.status:
            self._head_size += len(name) + len(value) + 4
            if self._head_size > self._limits.head:
                raise self._malformed(f"its head exceeds {self._limits.head} bytes")
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101:
                raise self._malformed("it switched protocols")
            self._interim = True
            self.headers.clear()
            return
        headers = self.headers
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            raise self._malformed("it is compressed, though that was not accepted")
        transfer = headers.get(b"transfer-encoding")
        if transfer is not None and transfer.strip().lower() != b"chunked":
            raise self._malformed("its transfer coding is not known")
        self._keep = self._parser.should_keep_alive()
        self.status = status
        if self._head_only:
            self._complete = True
        elif transfer is None and b"content-length" not in headers and status not in _NO_BODY:
            self._until_close = True

    def on_body(self, data: bytes) -> None:
        """A piece of content, freed from its framing."""
        if self._head_only:
            self._keep = False  # a body where none can be: the next answer would begin with it
        else:
            self._buffer.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        """The message has ended by its own framing."""
        if not self._interim:
            self._complete = True

    # Inside.

    def _malformed(self, what: str) -> BackendError:
        return BackendError(f"backend {self._name!r} sent a malformed answer: {what}")

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self._size = 0
        if self._paused:
            self._resume()
        return data

    def _resume(self) -> None:
        if self._paused and self._connection is not None:
            self._paused = False
            # While paused the backend could not send: its silence counts from now.
            self._last = self._clock()
            self._connection.resume()

    def _tick(self) -> None:
        limits = self._limits
        now = self._clock()
        quiet = limits.idle if self._begun else limits.first_byte
        due = min(self._last + quiet, self._total_at)
        if self._paused:
            due = self._total_at
        if now < due:
            # The limit may shrink to `idle` at any read, so no look is further away than that.
            self._timer = self._loop.call_at(min(due, now + limits.idle), self._tick)
        elif now >= self._total_at:
            self._fail(BackendTimeout(f"backend {self._name!r} did not finish its answer within {limits.total:g} s"))
        elif self._begun:
            self._fail(BackendTimeout(f"backend {self._name!r} stopped sending for {limits.idle:g} s"))
        else:
            self._fail(BackendTimeout(f"backend {self._name!r} sent no answer within {limits.first_byte:g} s"))

    def _end(self) -> None:
        """Give the connection back: what is unread lies in this object."""
        connection = self._connection
        if connection is None:
            return
        self._timer.cancel()
        self._resume()
        self._connection = None
        del self._parser  # it holds our methods: a cycle a request keeps the garbage collector busy
        connection.release(keep=self._keep and not self.sending)

    def _fail(self, error: GatewayError) -> None:
        connection = self._connection
        if connection is None:
            return
        self._error = error
        self._timer.cancel()
        self._connection = None
        del self._parser
        connection.release(keep=False)
        self._wake()


class Connection(asyncio.Protocol):
    """A TCP or TLS connection; it outlives its responses."""

    __slots__ = ("_keeper", "_poll", "_room", "idle_since", "loop", "response", "transport")

    def __init__(self, keeper: Keeper, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.response: Response | None = None
        self.idle_since = 0.0
        self._keeper = keeper
        self._poll: select.poll | None = None
        self._room: asyncio.Event | None = None
        """Set while more may be written; None: nobody has ever asked, and it may."""

    def usable(self) -> bool:
        """Whether the peer has neither closed it nor sent anything, as far as this host's kernel knows.

        The event loop may not have come round to a close yet. To ask the kernel costs 1 us and is what makes it
        right never to repeat a request: without it, a stale connection would only show once the request is out.
        """
        if self.transport is None or self.transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request."""
        transport = self.transport
        if transport is not None:
            if len(body) < 65536:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)

    async def room(self) -> None:
        """Wait until most of what was written is on its way, or the connection is gone."""
        if self._room is not None:
            await self._room.wait()

    def pause(self) -> None:
        """Stop reading: the peer's window fills and it stops sending."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def release(self, *, keep: bool) -> None:
        """The response is over; ``keep`` says that its end leaves the connection in order."""
        self.response = None
        transport = self.transport
        if transport is None:
            return
        # A backend may answer (413) before it has read the request: what is left of that would precede the next one.
        if keep and not transport.is_closing() and not transport.get_write_buffer_size():
            self._keeper.returned(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, without flushing."""
        if self.transport is not None:
            self.transport.abort()

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP, and TLS where asked for, are up."""
        self.transport = cast("asyncio.Transport", transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(select, "poll"):  # Windows has none
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def pause_writing(self) -> None:
        """The peer takes no more for now."""
        self._room = asyncio.Event()

    def resume_writing(self) -> None:
        """It takes more."""
        if self._room is not None:
            self._room.set()
            self._room = None

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.response is not None:
            self.response.received(data)
        else:
            self.abort()  # nobody asked: a 408 of a server that lost patience, or worse

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the event loop's signature
        """Closed, by whomever."""
        self.transport = None
        self.resume_writing()
        response, self.response = self.response, None
        if response is not None:
            response.lost()
        self._keeper.lost(self)
