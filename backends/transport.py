"""The data path's HTTP client: one origin, a pool of kept connections, and as few steps as Python allows.

Ours because it pays: httpx's pool is linear in open connections and costs milliseconds a request under load, aiohttp
half as much again a chunk; and because of what it must never do. It follows no redirect, reads no proxy from the
environment, keeps no cookie, and never sends a request twice: a generation costs money and time, and nobody can tell
whether a server that closed without an answer had begun one. So a kept connection is used only while fresh and while
the kernel knows it to be open, and what fails after that is the caller's to know. Control calls take the same way;
httpx would add a second pool and 0.1 s to the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from msgspec import Struct, structs

from backends.connection import Connection, Limits, Response
from canonical.errors import BackendTimeout, BackendUnavailable, Busy

__all__ = ["Address", "Client", "Head", "Limits", "Response"]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the addresses of a name and a port. Raises OSError."""


_LENGTH = b"Content-Length: "
"""How the prefix of a request with a body ends."""


class TlsFailed(BackendUnavailable):
    """There is a server, and no TLS with it that can be trusted."""


class Address(Struct, frozen=True):
    """Where a backend listens, and how TLS checks that it is the one."""

    host: str
    port: int
    tls: bool = False
    verify: bool = True
    ca_file: str = ""
    """PEM certificates to trust instead of the system's."""
    at: str = ""
    """The IP address to connect to, for who has looked the name up already; it is not looked up again."""

    @property
    def authority(self) -> str:
        """What stands in ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class Head(Struct, frozen=True):
    """A request's head, made once and sent often; only the body and its length change."""

    prefix: bytes
    """Up to the digits of the length, or without the blank line if ``bodiless``."""
    bodiless: bool = False
    head_only: bool = False
    """HEAD: the answer has no body, whatever its length says."""

    def plus(self, lines: tuple[bytes, ...]) -> Head:
        """The same with more headers; none of them may hold a line break."""
        if not lines:
            return self
        return structs.replace(self, prefix=self.prefix.replace(b"\r\n", b"\r\n".join((b"", *lines, b"")), 1))


class Client:
    """Sends requests to one backend. Belongs to one event loop; nothing happens before the first ``send``.

    ``name`` is what messages call the backend: its address may hold what a client must not see.
    """

    def __init__(
        self, name: str, address: Address, limits: Limits | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """``tls`` is a context to use instead of one of its own: to make one reads 200 certificates."""
        self._name = name
        self._address = address
        self._limits = limits or Limits()
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        self._open = 0
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._tls = tls
        self._closed = False

    def head(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Head:
        """Prepare a request. ``Host``, ``Accept-Encoding`` and the length are added.

        Raises:
            ValueError: a control character or a space where it would change the request.
        """
        if not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError("a path must be percent-encoded")
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._address.authority}", "Accept-Encoding: identity"]
        for name, value in (headers or {}).items():
            if not value.isprintable():
                raise ValueError(f"the value of header {name} has a control character")
            lines.append(f"{name}: {value}")
        bodiless = method in ("GET", "HEAD")
        lines.append("" if bodiless else _LENGTH.decode())
        return Head("\r\n".join(lines).encode("latin-1"), bodiless, method == "HEAD")

    async def send(self, head: Head, body: bytes = b"") -> Response:
        """Send a request and wait for the head of its answer; the caller reads or closes the rest.

        Raises:
            BackendUnavailable: no connection could be made.
            BackendTimeout: no connection, or no answer, within its limit.
            BackendError: an answer that is not HTTP, or none.
            Busy: all connections are taken and too many wait already, or one did for too long.
        """
        connection = self._fresh()
        if connection is None:
            connection = await self._acquire()
        response = Response(connection, name=self._name, limits=self._limits, head_only=head.head_only)
        connection.response = response
        try:
            connection.send(head.prefix + (b"\r\n" if head.bodiless else b"%d\r\n\r\n" % len(body)), body)
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def upload(self, head: Head, pieces: AsyncIterator[bytes]) -> Response:
        """As ``send``, with a body that comes in pieces, as fast as the backend takes them.

        An answer that comes before the end stops the sending. What ``pieces`` raises leaves the backend with half a body.
        """
        connection = self._fresh()
        if connection is None:
            connection = await self._acquire()
        response = Response(connection, name=self._name, limits=self._limits)
        connection.response = response
        response.sending = True
        try:
            connection.send(head.prefix.removesuffix(_LENGTH) + b"Transfer-Encoding: chunked\r\n\r\n", b"")
            async for piece in pieces:
                if response.answered:
                    break
                if piece:
                    connection.send(b"%x\r\n" % len(piece), piece + b"\r\n")
                    await connection.room()
                    response.alive()
            else:
                if not response.answered:
                    response.sending = False
                    connection.send(b"0\r\n\r\n", b"")
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    async def close(self) -> None:
        """Close every connection; answers still open fail."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        for connection in list(self._all):
            if connection.response is not None:
                connection.response.close()
            connection.abort()
        self._idle.clear()

    # What connections tell.

    def returned(self, connection: Connection) -> None:
        """A connection may serve another request: the longest waiting one, or a later one."""
        if self._closed:
            connection.abort()
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(self._limits.keep, self._drop_stale, connection.loop)

    def lost(self, connection: Connection) -> None:
        """A connection is closed, and its place free. It may still stand among the idle ones: cheaper than a search."""
        if connection in self._all:
            self._all.remove(connection)
            self._freed()

    # Inside.

    def _fresh(self) -> Connection | None:
        """The idle connection used last, if it can still be trusted."""
        while self._idle:
            connection = self._idle.pop()
            if connection.loop.time() - connection.idle_since < self._limits.keep and connection.usable():
                return connection
            connection.abort()
        return None

    async def _acquire(self) -> Connection:
        """A connection, new or waited for: first come, first served."""
        limits = self._limits
        while True:
            if self._closed:
                raise BackendUnavailable(f"backend {self._name!r} is being closed")
            if self._open < limits.connections:
                self._open += 1
                return await self._connect()
            if len(self._waiting) >= limits.waiting:
                raise Busy(f"backend {self._name!r} is busy, and {limits.waiting} requests wait already", retry_after=1)
            waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout(limits.wait):
                    connection = await waiter
            except BaseException as error:
                # Whatever was handed over in the same moment goes to the next.
                if waiter.done() and not waiter.cancelled():
                    given = waiter.result()
                    if given is None:
                        self._freed()
                    else:
                        given.release(keep=True)
                else:
                    waiter.cancel()
                    with contextlib.suppress(ValueError):
                        self._waiting.remove(waiter)
                if isinstance(error, TimeoutError):
                    raise Busy(f"backend {self._name!r} was busy for {limits.wait:g} s", retry_after=1) from None
                raise
            if connection is None:
                if not self._closed:
                    return await self._connect()
            elif connection.usable():
                return connection
            else:
                connection.abort()

    async def _connect(self) -> Connection:
        """Open a connection in a place that is already counted."""
        loop = asyncio.get_running_loop()
        address = self._address
        connection = Connection(self, loop)
        self._all.add(connection)
        try:
            if address.tls and self._tls is None:
                self._tls = await asyncio.to_thread(tls_context, address)  # no one waits
            async with asyncio.timeout(self._limits.connect):
                await loop.create_connection(
                    lambda: connection,
                    address.at or address.host,
                    address.port,
                    ssl=self._tls if address.tls else None,
                    server_hostname=address.host if address.tls else None,
                )
        except BaseException as error:
            connection.abort()
            # Not left to `connection_lost`: uvloop does not call it for a connection that is cancelled while it is
            # being made, asyncio does.
            self.lost(connection)
            if isinstance(error, TimeoutError):
                limit = f"{self._limits.connect:g} s"
                raise BackendTimeout(f"backend {self._name!r} could not be reached within {limit}") from None
            if isinstance(error, ssl.SSLError):
                raise TlsFailed(f"backend {self._name!r} cannot be reached: {_reason(error)}") from None
            if isinstance(error, OSError | UnicodeError):
                raise self._unreached(_reason(error)) from None
            raise
        if self._closed:
            connection.abort()
        if connection.transport is None or self._closed:
            raise self._unreached("the connection was closed at once")
        return connection

    def _unreached(self, reason: str) -> BackendUnavailable:
        called = f"backend {self._name!r}"
        error = BackendUnavailable(f"{called} cannot be reached: {reason}")
        error.server, error.reason = called, reason
        return error

    def _freed(self) -> None:
        """A place is free: the longest waiting request may connect in it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._open -= 1

    def _drop_stale(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the connections that were idle for too long; the oldest stand first."""
        self._sweep = None
        now = loop.time()
        while self._idle and now - self._idle[0].idle_since >= self._limits.keep:
            self._idle.popleft().abort()
        if self._idle:
            due = self._idle[0].idle_since + self._limits.keep
            self._sweep = loop.call_at(due, self._drop_stale, loop)


async def look_up(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system gives them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def tls_context(address: Address) -> ssl.SSLContext:
    """How TLS checks the server at ``address``; HTTP/1.1 is all we speak."""
    context = ssl.create_default_context(cafile=address.ca_file or None)
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _reason(error: OSError | UnicodeError) -> str:
    """Why a connection failed, without the address or a path, which asyncio and ssl put into their texts."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS failed"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its host name is not known"
    return os.strerror(error.errno).lower() if error.errno else "no connection could be made"
