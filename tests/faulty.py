"""A fake backend, for faults that no real server shows on command: it does to a socket exactly what a test says.

Nothing here judges or waits for time: a script is a coroutine over one connection, and a test awaits its events.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from msgspec import Struct


class Received(Struct, frozen=True):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection, seen from the server."""

    def __init__(self, faulty: Faulty, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.faulty = faulty
        self.reader = reader
        self.writer = writer
        self.number = faulty.connections

    async def request(self) -> Received:
        """Read one request. Raises IncompleteReadError when the client has gone."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        received = Received(method, path, headers, body)
        self.faulty.requests.append(received)
        return received

    async def send(self, *pieces: bytes) -> None:
        """Write, each piece by itself."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Close with a TCP reset instead of an orderly end."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: on, 0 s
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client closes."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        self.faulty.left.set()


Script = Callable[[Peer], Awaitable[None]]


class Faulty:
    """Listens on a free loopback port and runs ``script`` for every connection, then closes it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.port = 0
        self.connections = 0
        self.requests: list[Received] = []
        self.left = asyncio.Event()
        """A client was seen to leave (see ``Peer.gone``)."""
        self.closed = asyncio.Event()
        """A script has ended and its connection is closed."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.script(Peer(self, reader, writer))
        except asyncio.CancelledError:
            writer.transport.abort()  # the streams module would print a cancelled server task
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.closed.set()

    async def end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def faulty(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Faulty]:
    """A running fake; every connection is closed at the end."""
    fake = Faulty(script)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=tls)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await fake.end()


def reply(
    status: int = 200, body: bytes = b"", *, kind: str = "application/json", headers: Iterable[str] = ()
) -> bytes:
    """A whole answer with a length."""
    lines = [f"HTTP/1.1 {status} Fine", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked_head(kind: str, *headers: str) -> bytes:
    """The head of a streamed answer."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One piece of a streamed answer; the empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def always(*pieces: bytes) -> Script:
    """Answer every request of a connection with these bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return script


def once(*pieces: bytes) -> Script:
    """Answer the first request with these bytes, then close."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)

    return script


def then_silent(*pieces: bytes) -> Script:
    """Answer with these bytes, then stay silent until the client leaves."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.gone()

    return script


MODELS = reply(body=b'{"object":"list","data":[{"id":"m"}]}')
"""A list of one model, in OpenAI's dialect."""


def listing(then: Callable[[Peer, Received], Awaitable[None]], models: bytes = MODELS) -> Script:
    """List models; every other request is for ``then`` to answer."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.path == "/v1/models":
                await peer.send(models)
            else:
                await then(peer, request)

    return script


def endless(head: bytes, piece: bytes) -> Script:
    """Answer with ``head``, then with ``piece`` for ever."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(head)
        try:
            while True:
                await peer.send(piece)
        finally:
            peer.faulty.left.set()

    return script
