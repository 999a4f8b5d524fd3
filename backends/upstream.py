"""One server behind HTTP: its settings, and one exchange with it, told as events, as its own bytes or as an error.

Which paths there are and what the bytes mean is left to ``openai``, ``ollama`` and ``anthropic``, connections to ``transport``,
and what such backends do alike to ``remote``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct, structs

from adapters.dialect import Reader
from adapters.relaying import Frames
from adapters.upstream import retry_seconds
from backends.base import Section
from backends.transport import Address, Client, Head, Limits, Response
from canonical.errors import BackendError, BackendUnavailable, GatewayError
from canonical.events import Event, Finished

ERROR_LIMIT = 64 * 1024
"""Bytes of a backend's error that are read."""
LAST_TIME = 1.0
"""Seconds that a usage record may follow the finish reason; some servers then neither end the stream nor close."""
ERROR_TIME = 5.0
"""Seconds in which they have to come: the status already says what matters."""
SECRET = 4
"""Characters of a key from which on it is taken out of messages; a dummy like ``x`` would garble them."""

WORK_TIME = 7 * 86400.0
"""Seconds that fetching or making a model may take."""
WORK_LINES = 1024 * 1024 * 1024
"""Bytes that a server may tell of it."""

Seconds = Annotated[float, Meta(gt=0)]


class Timeouts(Section, frozen=True):
    """How long a backend may take, in seconds."""

    connect: Seconds = 5.0
    first_byte: Seconds = 300.0
    idle: Seconds = 60.0
    total: Seconds = 1800.0


class RemoteSettings(Section, frozen=True):
    """The keys of a backend behind HTTP."""

    url: str
    api_key: str = ""
    """Sent as a bearer token; empty: none."""
    models: tuple[str, ...] = ()
    """The catalog, for servers that have no list of models or too long a one; empty: ask the server."""
    max_running: Annotated[int, Meta(ge=0)] = 0
    """Requests at once, over all its models; more wait in order. 0: as many as come."""
    timeouts: Timeouts = Timeouts()
    verify: bool = True
    """Check the server's certificate."""
    ca_file: str = ""
    """PEM file of certificates to trust instead of the system's; relative to the configuration."""
    abilities: str = ""
    """What ``dragoman probe`` wrote about the server; relative to the configuration. Empty: nothing is known."""
    image_links: bool = False
    """The server follows links to images itself: pass on those whose host is listed, unread."""

    def __post_init__(self) -> None:
        """Refuse what cannot work while the configuration is read. Messages never quote the key or the URL."""
        read_url(self.url)
        if not self.api_key.isascii() or not self.api_key.isprintable() or " " in self.api_key:
            raise ValueError("api_key has a character that no header can carry")

    def __repr__(self) -> str:
        """Without the key."""
        return f"{type(self).__name__}(url={self.url!r})"


class Exchange(Struct, frozen=True):
    """A request put into a backend's words, and what reads the answer."""

    head: Head
    body: bytes
    reader: Callable[[], Reader]
    whole: Callable[[bytes], list[Event]]
    streams: frozenset[str]
    """Media types of a streamed answer."""


class Upstream:
    """One backend behind HTTP. Every failure leaves here as a GatewayError without our key in it."""

    def __init__(
        self,
        name: str,
        settings: RemoteSettings,
        base: Path,
        *,
        prefix: Callable[[str], str],
        read_error: Callable[[int, bytes, str | None], GatewayError],
        headers: Callable[[str], dict[str, str]] = lambda key: {"Authorization": f"Bearer {key}"} if key else {},
        called: str = "",
    ) -> None:
        """Prepare, without connecting. Raises ValueError.

        ``prefix`` makes what stands before each path out of the URL's own path, ``headers`` what goes with each request
        out of the key (empty: none). ``called``: what people call such a server, where it has a name.
        """
        ca_file = str(base / settings.ca_file) if settings.ca_file else ""
        if ca_file and not Path(ca_file).is_file():
            raise ValueError(f"ca_file {settings.ca_file!r} is no file")
        address, path = read_url(settings.url)
        address = structs.replace(address, verify=settings.verify, ca_file=ca_file)
        limits = Limits(**structs.asdict(settings.timeouts))
        if settings.max_running:
            # HTTP/1.1 carries one request a connection, so this is where requests queue.
            limits = structs.replace(limits, connections=settings.max_running)
        self.name = name
        self.image_links = settings.image_links
        self._key = settings.api_key
        self._secret = self._key.encode() if len(self._key) >= SECRET else b""
        self._address = address
        self._prefix = prefix(path)
        self._called = called
        self._read_error = read_error
        self._headers = {"User-Agent": "dragoman", "Accept": "*/*", "Content-Type": "application/json"}
        self._headers.update(headers(self._key))
        self._data = Client(name, address, limits)
        # Its own connections and patience: a list of models waits neither behind generations nor as long as they may.
        soon, whole = min(30.0, limits.first_byte), min(60.0, limits.total)
        self._control = Client(name, address, structs.replace(limits, connections=8, first_byte=soon, total=whole))

        # Work on a model goes on for hours, and may be silent while a large file is checked.
        patient = structs.replace(
            limits, connections=64, idle=max(600.0, limits.idle), total=WORK_TIME, reply=WORK_LINES
        )
        self._work = Client(name, address, patient)

    def head(self, method: str, path: str, media_type: str = "application/json") -> Head:
        """Prepare a request to ``path`` under the URL, with a body of this type."""
        return self._data.head(method, self._prefix + path, {**self._headers, "Content-Type": media_type})

    def linked(self, url: str) -> Head | None:
        """Prepare a request for what a link of the server's points to; None: not to the server itself, or to nothing.

        A link without a host counts from the server.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            tls = parts.scheme == "https"
            there = (parts.hostname, port, tls) == (self._address.host.lower(), self._address.port, self._address.tls)
            if (parts.scheme or parts.netloc) and (not there or parts.username is not None):
                return None
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            return self._data.head("GET", path, self._headers) if path.startswith("/") else None
        except ValueError:
            return None

    async def control(self, head: Head, body: bytes = b"") -> bytes:
        """The whole answer to a question that starts no generation."""
        return await self._ask(self._control, head, body)

    async def ask(self, head: Head, body: bytes) -> bytes:
        """The whole answer to a request that makes a model work."""
        return await self._ask(self._data, head, body)

    async def generate(self, exchange: Exchange, *, stream: bool) -> AsyncGenerator[list[Event], None]:
        """The answer's events, as many at once as one read gave; closing the generator closes the connection.

        A stream is complete with its finish reason: what becomes of the connection afterwards is no failure.
        """
        with self._worded():
            response = await self._data.send(exchange.head, exchange.body)
            try:
                await self._check(response)
                media_type = _media_type(response)
                told = media_type in exchange.streams
                # Some servers stream whatever they are asked for. JSON may be either, and is what was asked for.
                if (told and not _is_json(media_type)) or (stream and (told or not media_type)):
                    reader = exchange.reader()
                    ended = False
                    while not ended:
                        try:
                            data = await (_last_read(response) if reader.ending else response.read())
                        except BackendError:
                            events = reader.finish()
                            if not _finished(events):
                                raise
                        else:
                            if data:
                                events = reader.feed(self._told(data))
                            else:
                                ended = True
                                events = reader.finish()
                        if events:
                            if _finished(events):
                                ended = True
                                response.drain()
                            yield events
                        if reader.failure is not None:
                            raise reader.failure
                elif _is_json(media_type):
                    # Also in place of a stream: an error with status 200, as LM Studio sends it.
                    yield exchange.whole(self._told(await response.body()))
                else:
                    raise BackendError(f"backend {self.name!r} answered with {media_type[:80]!r}, which is no answer")
            finally:
                response.close()

    async def relay(
        self, head: Head, body: bytes, *, streams: frozenset[str]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """The answer as it comes: its content type and its bytes, unread. Without ``streams`` it is one piece."""
        with self._worded():
            response = await self._data.send(head, body)
            try:
                await self._check(response)
                media_type = _media_type(response)
                told = self._told(response.headers.get(b"content-type", b"application/json")).decode("ascii", "ignore")
                if media_type in streams:
                    frames = Frames(media_type)
                    try:
                        while data := await response.read():
                            if whole := frames.feed(data):
                                yield told, self._told(whole)
                    except GatewayError:
                        if not frames.ended:
                            raise  # else what is lost is only the end of the connection
                    else:
                        rest = frames.finish()
                        if not frames.ended:
                            raise BackendError(
                                "the backend closed the stream before it finished", code="incomplete_stream"
                            )
                        yield told, self._told(rest)
                elif _is_json(media_type):
                    yield told, self._told(await response.body())
                else:
                    raise BackendError(f"backend {self.name!r} answered with {media_type[:80]!r}, which is no answer")
            finally:
                response.close()

    async def told(self, head: Head, body: bytes = b"") -> AsyncGenerator[tuple[str, bytes], None]:
        """The answer as it comes, unread: its media type with each piece. Closing the generator closes the connection."""
        with self._worded():
            response = await self._data.send(head, body)
            try:
                await self._check(response)
                media_type = _media_type(response)
                while data := await response.read():
                    yield media_type, self._told(data)
            finally:
                response.close()

    async def lines(self, head: Head, body: bytes) -> AsyncGenerator[bytes, None]:
        """What a server tells of long work, as it comes; closing the generator closes the connection."""
        with self._worded():
            response = await self._work.send(head, body)
            try:
                await self._check(response)
                while data := await response.read():
                    yield self._told(data)
            finally:
                response.close()

    async def upload(self, head: Head, pieces: AsyncIterator[bytes]) -> int:
        """Send a file; the status of the answer."""
        with self._worded():
            response = await self._work.upload(head, pieces)
            try:
                await self._check(response)
                return response.status
            finally:
                response.close()

    async def done(self, head: Head, body: bytes = b"", *, absent: bool = False) -> bool:
        """Ask for something that has no answer but its status; False: 404, where it may be ``absent``."""
        with self._worded():
            response = await self._control.send(head, body)
            try:
                if absent and response.status == 404:
                    return False
                await self._check(response)
                response.drain()
            finally:
                response.close()
        return True

    async def close(self) -> None:
        """Close all connections."""
        await self._data.close()
        await self._work.close()
        await self._control.close()

    async def _ask(self, client: Client, head: Head, body: bytes) -> bytes:
        with self._worded():
            response = await client.send(head, body)
            try:
                await self._check(response)
                media_type = _media_type(response)
                if not _is_json(media_type):
                    raise BackendError(f"backend {self.name!r} answered with {media_type[:80]!r} instead of JSON")
                answer = self._told(await response.body())
            finally:
                response.close()
        return answer

    @contextlib.contextmanager
    def _worded(self) -> Iterator[None]:
        """Failures leave in our words: without our key, and as our own errors."""
        try:
            yield
        except GatewayError as error:
            self._redact(error)
            if self._called and isinstance(error, BackendUnavailable):
                error.server = self._called
            raise
        except UnicodeDecodeError as error:
            # What msgspec raises for JSON with bytes that are no UTF-8; it is none of its own errors.
            text = f"backend {self.name!r} sent text that is not UTF-8: {error.reason}"
            raise BackendError(text) from error

    async def _check(self, response: Response) -> None:
        """Raise what a status other than success means. Redirects are none: a key goes only where it was sent."""
        if 200 <= response.status < 300:
            return
        try:
            async with asyncio.timeout(ERROR_TIME):
                body = await response.body(ERROR_LIMIT)
        except (BackendError, TimeoutError):
            body = b""
        pause = retry_seconds(response.header(b"retry-after"), now=time.time())
        raise self._read_error(response.status, body, None if pause is None else f"{pause:.0f}")

    def _told(self, data: bytes) -> bytes:
        """What the backend sent, without our key, as far as one read holds the whole of it."""
        if self._secret and self._secret in data:
            return data.replace(self._secret, b"[redacted]")
        return data

    def _redact(self, error: GatewayError) -> None:
        """Take our key out of what the backend said."""
        if len(self._key) < SECRET:
            return
        if self._key in error.message:
            error.message = error.message.replace(self._key, "[redacted]")
            error.args = (error.message,)
        if error.code is not None and self._key in error.code:
            error.code = None
        if error.param is not None and self._key in error.param:
            error.param = None


def read_url(url: str) -> tuple[Address, str]:
    """An ``http`` or ``https`` URL as an address, and its path without a slash at the end.

    Raises:
        ValueError: another scheme, no host, credentials, a query or a fragment; the message does not quote the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("url is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("url must not hold credentials: put the key into api_key")
    if parts.query or parts.fragment:
        raise ValueError("url must end with its path")
    if not re.fullmatch(r"[!-~]*", url):
        raise ValueError("url has characters that must be percent-encoded")
    tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if tls else 80), tls), parts.path.rstrip("/")


async def _last_read(response: Response) -> bytes:
    try:
        async with asyncio.timeout(LAST_TIME):
            return await response.read()
    except TimeoutError:
        return b""


def _media_type(response: Response) -> str:
    return response.header(b"content-type").partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    """Servers that say nothing are taken at their bytes."""
    return media_type in ("", "application/json", "text/json") or media_type.endswith("+json")


def _finished(events: list[Event]) -> bool:
    return bool(events) and type(events[-1]) is Finished
