"""HTTP/1.1 as the gateway accepts it: uvicorn's httptools protocol, with limits, deadlines and strict framing.

llhttp, below httptools, refuses by itself: a length beside a transfer coding, repeated or malformed lengths, bad chunk
sizes and ends, bare CR and LF, folded lines, blanks before a colon, control characters in the head. Added here: the size
and the number of headers (431), the time for a head and the silence within a body (408), the size of a body, announced
or counted while it comes (413), its content encoding (415), Host, HTTP versions, transfer codings other than one
``chunked``, trailers (dropped), early data of pipelining clients, upgrades (ignored), and words in JSON for all of it.

The event loop sets TCP_NODELAY by itself, uvloop's and asyncio's alike.

A refused connection answers, stops sending, reads on for a moment so that the answer is not lost to a reset, and ends.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import unquote

import httptools
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from canonical import limits
from gateway.web.cycle import DEPARTURE, Cycle, Departure

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

Refuse = Callable[[int, str, bytes], bytes]
"""Status, message, path as it came (``b""`` when none has) -> a JSON body."""

EARLY_DATA = 64 * 1024
"""Bytes of a next request kept while one is being answered; then reading pauses."""
PIPELINE = 64
"""Requests of one read that may wait for their turn."""

_CHECKED = frozenset({b"content-encoding", b"content-length", b"expect", b"host", b"transfer-encoding"})
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?[ \t]*")


class HttpLimits(Struct, frozen=True, kw_only=True):
    """Bounds on one request; bytes and seconds."""

    head: int = 64 * 1024
    headers: int = 100
    body: int = limits.BODY
    upload: int = 2**62
    """Of a body that goes to one of ``uploads``."""
    uploads: tuple[bytes, ...] = ()
    """How the targets begin whose bodies are files."""
    head_time: float = 10.0
    """From its first byte, or from the connection's start, to the end of a head."""
    body_silence: float = 30.0
    unread: float = 300.0
    """How long a client may leave an answer unread."""
    linger: float = 2.0
    """How long a refused client may go on sending before the connection is cut."""


class Refused(Exception):
    """The connection cannot go on; ``status`` and the message go to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def error_json(status: int, message: str, path: bytes) -> bytes:
    """The words of a refusal where no dialect has its own."""
    del status, path
    return json.dumps({"error": message}).encode()


def strict_protocol(limits: HttpLimits, refuse: Refuse = error_json) -> type[StrictProtocol]:
    """A protocol class for uvicorn's ``http`` setting."""
    own = {"limits": limits, "refuse": staticmethod(refuse)}
    return cast("type[StrictProtocol]", type("StrictProtocol", (StrictProtocol,), own))


class StrictProtocol(HttpToolsProtocol):
    """One connection. Its one timer is set anew only when it fires, so a fast request pays nothing for it."""

    limits: ClassVar[HttpLimits] = HttpLimits()
    refuse: ClassVar[Refuse] = staticmethod(error_json)
    cycle: Cycle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None
        self.url = b""
        self._in_head = False
        self._hosts = 0
        self._codings = 0
        self._chunk = 0
        """Bytes of the read that is being parsed."""
        self._spent = 0
        """Bytes of earlier reads that went into this head, or into chunk framing that brought no data."""
        self._received = 0
        """Bytes of a chunked body."""
        self._unwanted = 0
        """Bytes of a body that came when its request was answered already."""
        self._early = bytearray()
        self._serving: Cycle | None = None
        """The request being answered; ``self.cycle`` is the newest that was read."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._leaving = False
        self._refusal = b""

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Start the clock of the first head."""
        super().connection_made(transport)
        self._wait(self.limits.head_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request being answered, which need not be the newest."""
        self._forsake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """A client that has sent its last byte has left: nothing tells a closed connection from a half-closed one."""
        self._forsake()
        self._leaving = True
        # asyncio closes the transport now, but only once it has written what a client may never read
        self._wait(self.limits.linger)

    def shutdown(self) -> None:
        """As uvicorn has it; a connection that lingers is cut."""
        if self._leaving and not self._refusal:
            self.transport.abort()
        else:
            super().shutdown()

    def _forsake(self) -> None:
        self.pipeline.clear()
        self._early.clear()
        for cycle in (self._serving, self.cycle):
            if cycle is not None:
                cycle.leave()

    # Bytes in

    def data_received(self, data: bytes) -> None:
        """Parse; a request that comes while another is being answered waits unparsed."""
        if self._leaving:
            return
        before = self.cycle
        if before is not None and not before.more_body and not before.response_complete:
            self._early += data
            if len(self._early) > EARLY_DATA:
                self.flow.pause_reading()
            return
        in_body = before is not None and before.more_body
        received = self._received
        self._chunk = len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            self._refuse(_refused(error))
            return
        cycle = self.cycle
        if self._in_head:
            fresh = cycle is before and not in_body
            self._spent = self._spent + len(data) if fresh else self._head_size()
            if self._spent > self.limits.head:
                self._refuse(Refused(431, f"the request head has more than {self.limits.head} bytes"))
            elif not fresh or self._spent == len(data):
                self._wait(self.limits.head_time)
        elif cycle is not None and cycle.more_body:
            if self._codings and cycle is before:
                self._spent = self._spent + len(data) if self._received == received else 0
                if self._spent > self.limits.head:
                    self._refuse(Refused(400, "chunk extensions or trailers without end"))
                    return
            self._wait(self.limits.body_silence)

    def _parse(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            else:
                return

    def _without_upgrade(self) -> bytes:
        """The head just read, without its wish for another protocol: the request itself stands.

        httptools takes such a request's body for the new protocol's first bytes. Java's client asks for HTTP/2 so.
        """
        version = self.parser.get_http_version().encode()
        head = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join(head) + b"\r\n"

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._hosts = self._codings = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; few names are looked at."""
        name = name.lower()
        self.headers.append((name, value))
        if name in _CHECKED:
            self._check_header(name, value)

    def _check_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer
            return
        match name:
            case b"host":
                self._hosts += 1
                if not _HOST.fullmatch(value):
                    raise Refused(400, "malformed Host")
            case b"content-length":
                if int(value) > self._body_limit():
                    raise Refused(413, f"the body may have at most {self._body_limit()} bytes")
            case b"transfer-encoding":
                self._codings += 1
                if self._codings > 1 or value.strip(b" \t").lower() != b"chunked":
                    raise Refused(400, "a Transfer-Encoding other than chunked is not accepted")
            case b"content-encoding":
                if value.strip(b" \t").lower() != b"identity":
                    raise Refused(415, "a compressed body is not accepted")
            case _:
                self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """Check the head as a whole and start its request, or queue it."""
        limits, parser, scope = self.limits, self.parser, self.scope
        if len(self.headers) > limits.headers:
            raise Refused(431, f"the request has more than {limits.headers} headers")
        if self._spent + self._chunk > limits.head and self._head_size() > limits.head:
            raise Refused(431, f"the request head has more than {limits.head} bytes")
        version = parser.get_http_version()
        if self._hosts != 1 or version != "1.1":
            self._check_version(version)
        if len(self.pipeline) >= PIPELINE:
            raise Refused(400, "too many requests before the first answer")
        method = parser.get_method()
        if parser.should_upgrade():
            if method == b"CONNECT":
                raise Refused(400, "this is no proxy")
            return  # it comes again, without the upgrade
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        self._locate(self.url)
        before = self.cycle
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        cycle.unread = self.limits.unread
        cycle.departure = departure = Departure()
        scope["extensions"] = {DEPARTURE: cast("dict[object, object]", departure)}
        self._in_head = False
        self._spent = self._received = self._unwanted = 0
        self.headers = []  # trailers go here, and nowhere
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            # uvicorn would stop reading here, and not see the client leave; early data is kept in bounds below.
            self.pipeline.appendleft((cycle, self.app))

    def _locate(self, url: bytes) -> None:
        """Put the request's target into its scope; an absolute one counts by its path."""
        if url[:1] == b"/" and b"#" not in url:
            raw_path, _, query = url.partition(b"?")
        else:
            parsed = httptools.parse_url(url)
            raw_path, query = parsed.path, parsed.query or b""
            if raw_path is None:
                raise Refused(400, "the request target has no path")
        path = raw_path.decode("ascii")
        scope = self.scope
        scope["path"] = self.root_path + (unquote(path) if "%" in path else path)
        scope["raw_path"] = self.root_path.encode("ascii") + raw_path if self.root_path else raw_path
        scope["query_string"] = query

    def _check_version(self, version: str) -> None:
        if version == "1.1":
            raise Refused(400, "exactly one Host is needed")
        if version != "1.0":
            raise Refused(400, f"HTTP {version} is not spoken here")
        if self._hosts > 1:
            raise Refused(400, "more than one Host")
        if self._codings:
            raise Refused(400, "HTTP 1.0 has no Transfer-Encoding")

    def on_body(self, body: bytes) -> None:
        """Count a chunked body; an announced one was checked in its head."""
        if self._codings:
            self._received += len(body)
            if self._received > self._body_limit():
                raise Refused(413, f"the body may have at most {self._body_limit()} bytes")
        if self.cycle.response_complete:
            # Clients that send a file which is there already read the answer behind their last byte. Who was refused
            # sends no more than any body may have.
            self._unwanted += len(body)
            if self._unwanted > self.limits.body and self.cycle.refused:
                raise Refused(413, "the request was answered before its body ended")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole, even when it was answered before."""
        if self._in_head:  # an upgrade, about to come again
            return
        cycle = self.cycle
        cycle.more_body = False
        cycle.message_event.set()
        self.flow.resume_reading()  # a full buffer stopped it, and an application need not ask again
        self._spent = 0
        if cycle.response_complete:
            self._wait(self.timeout_keep_alive)

    def _body_limit(self) -> int:
        """Bytes that the body of the request being parsed may have."""
        return self.limits.upload if self.url.startswith(self.limits.uploads) else self.limits.body

    def _head_size(self) -> int:
        return len(self.url) + 16 + sum(len(name) + len(value) + 4 for name, value in self.headers)

    # Answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._serving = cast("Cycle", cycle)
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with what waits: a queued request, a refusal, early data; else with the next head."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal:
            self._send_refusal()
        elif self.cycle.more_body:
            self._wait(self.limits.body_silence)
        elif self._in_head:
            self._wait(self.limits.head_time)
        else:
            self._wait(self.timeout_keep_alive)
        if self._early and not self.pipeline and (self._serving is None or self._serving.response_complete):
            data = bytes(self._early)
            self._early.clear()
            self.data_received(data)

    def _refuse(self, refused: Refused) -> None:
        self._leaving = True
        self._early.clear()
        body = type(self).refuse(refused.status, refused.message, self.url.partition(b"?")[0])
        head = [STATUS_LINE[refused.status]]
        head += [b"%b: %b\r\n" % header for header in self.server_state.default_headers]
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self._refusal = b"".join(head) + body
        cycle = self.cycle
        if not self._in_head and cycle is not None and cycle.more_body:
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            elif cycle.response_started:
                # Half an answer is on its way, or a whole one: no second may follow.
                self._refusal = b""
            cycle.more_body = False
            cycle.leave()
            if cycle is self._serving:
                self._serving = None
        self.logger.info("refused a request: %d %s", refused.status, refused.message)
        if self._serving is None or self._serving.response_complete:
            self._send_refusal()

    def _send_refusal(self) -> None:
        if self.transport.is_closing():
            return
        if self._refusal:
            self.transport.write(self._refusal)
            self._refusal = b""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._wait(self.limits.linger)
        else:
            self.transport.close()

    # Time

    def _wait(self, seconds: float) -> None:
        """The client has until then to go on."""
        self._deadline = deadline = self.loop.time() + seconds
        if self._timer is None:
            self._arm(deadline)
        elif self._timer_at > deadline:
            self._timer.cancel()
            self._arm(deadline)

    def _arm(self, at: float) -> None:
        self._timer_at = at
        self._timer = self.loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.loop.time() < self._deadline:
            self._arm(self._deadline)
            return
        cycle, serving = self.cycle, self._serving
        if self._leaving:
            if not self._refusal:
                self.transport.abort()
        elif cycle is not None and cycle.more_body:
            if self.flow.read_paused or (cycle.waiting_for_100_continue and not cycle.response_complete):
                self._wait(self.limits.body_silence)  # it is we who do not read, or have not said that we will
            else:
                self._refuse(Refused(408, f"the body was silent for {self.limits.body_silence:g} s"))
        elif serving is not None and not serving.response_complete:
            return  # its end sets the next deadline
        elif self._in_head:
            self._refuse(Refused(408, f"the request head was not complete within {self.limits.head_time:g} s"))
        elif not self.transport.is_closing():
            self.transport.close()


def _refused(error: httptools.HttpParserError) -> Refused:
    """A parser error gives llhttp's reason in fixed words; an exception of ours is the context of its own."""
    cause = error.__context__
    if isinstance(cause, Refused):
        return cause
    if cause is None:
        return Refused(400, f"malformed HTTP request: {error}")
    return Refused(400, "malformed request target")
