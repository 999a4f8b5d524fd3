"""The strict HTTP protocol: hostile requests over real sockets, deadlines on a clock that the test moves."""

from __future__ import annotations

import asyncio
import gc
import json
import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import uvicorn
import uvloop

from canonical import limits as canonical_limits
from gateway.web.cycle import DEPARTURE, Departure
from gateway.web.protocol import HttpLimits, StrictProtocol, strict_protocol

BODY = 4096
LIMITS = HttpLimits(body=BODY, linger=0.5)
HOST = b"Host: localhost:11434\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST /api/chat HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


def get(headers: bytes = b"", *, host: bytes = HOST, version: bytes = b"HTTP/1.1", path: bytes = b"/echo") -> bytes:
    return b"GET " + path + b" " + version + b"\r\n" + host + headers + b"\r\n"


REFUSED = {
    # lengths
    "length and coding": (400, post(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "coding and length": (400, post(b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "two lengths": (400, post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"hi")),
    "length with plus": (400, post(b"Content-Length: +2\r\n", b"hi")),
    "negative length": (400, post(b"Content-Length: -2\r\n", b"hi")),
    "hex length": (400, post(b"Content-Length: 0x2\r\n", b"hi")),
    "list of lengths": (400, post(b"Content-Length: 2, 2\r\n", b"hi")),
    "length with a gap": (400, post(b"Content-Length: 2 2\r\n", b"hi")),
    "length with underscore": (400, post(b"Content-Length: 1_0\r\n", b"hi")),
    "empty length": (400, post(b"Content-Length: \r\n", b"hi")),
    "length past 64 bits": (400, post(b"Content-Length: 99999999999999999999999\r\n", b"hi")),
    "length past the limit": (413, post(b"Content-Length: %d\r\n" % (BODY + 1))),
    # transfer codings
    "identity": (400, post(b"Transfer-Encoding: identity\r\n", b"hi")),
    "gzip": (400, post(b"Transfer-Encoding: gzip\r\n", b"hi")),
    "gzip, chunked": (400, post(b"Transfer-Encoding: gzip, chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "chunked, gzip": (400, post(b"Transfer-Encoding: chunked, gzip\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "chunked twice": (400, post(b"Transfer-Encoding: chunked, chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "two codings": (
        400,
        post(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n"),
    ),
    "almost chunked": (400, post(b"Transfer-Encoding: xchunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "vertical tab chunked": (400, post(b"Transfer-Encoding: \x0bchunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "chunked with parameter": (400, post(b"Transfer-Encoding: chunked;q=1\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "blank before the coding's colon": (400, post(b"Transfer-Encoding : chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "folded coding": (400, post(b"Transfer-Encoding:\r\n chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")),
    "chunked in HTTP 1.0": (
        400,
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ),
    # chunks
    "no line end after a chunk": (400, CHUNKED + b"2\r\nhi0\r\n\r\n"),
    "chunk longer than its size": (400, CHUNKED + b"2\r\nhix\r\n0\r\n\r\n"),
    "bare LF after a size": (400, CHUNKED + b"2\nhi\r\n0\r\n\r\n"),
    "bare LF after a chunk": (400, CHUNKED + b"2\r\nhi\n0\r\n\r\n"),
    "negative chunk": (400, CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n"),
    "0x chunk": (400, CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n"),
    "empty size": (400, CHUNKED + b"\r\nhi\r\n0\r\n\r\n"),
    "size past 64 bits": (400, CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhi\r\n0\r\n\r\n"),
    "blank after a size": (400, CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n"),
    "bare CR in an extension": (400, CHUNKED + b"2;a\rb\r\nhi\r\n0\r\n\r\n"),
    "bare LF after an extension": (400, CHUNKED + b"2;a\nhi\r\n0\r\n\r\n"),
    "bare LF at the end": (400, CHUNKED + b"2\r\nhi\r\n0\r\n\n"),
    "a length as trailer": (400, CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 7\r\n\r\n"),
    "chunks past the limit": (413, CHUNKED + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 5),
    "extensions without end": (400, CHUNKED + b"2;" + b"x" * 200_000),
    "trailers without end": (400, CHUNKED + b"0\r\n" + b"X: y\r\n" * 40_000),
    # lines
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF after a header": (400, get(b"X: 1\nY: 2\r\n")),
    "bare CR after a header": (400, get(b"X: 1\rY: 2\r\n")),
    "bare CR in the request line": (400, b"GET / HTTP/1.1\rHost: a\r\n\r\n"),
    "bare CR before the end": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\rX"),
    "folded header": (400, get(b"X: a\r\n b\r\n")),
    "header folded with a tab": (400, get(b"X: a\r\n\tb\r\n")),
    "fold before the first header": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "blank before a colon": (400, get(b"X : a\r\n")),
    "tab before a colon": (400, get(b"X\t: a\r\n")),
    "no colon": (400, get(b"Xyz\r\n")),
    "no name": (400, get(b": a\r\n")),
    "blank in a name": (400, get(b"X y: a\r\n")),
    "control character in a name": (400, get(b"X\x01: a\r\n")),
    "bytes past ASCII in a name": (400, get(b"X\xc3\xa9: a\r\n")),
    "NUL in a value": (400, get(b"X: a\x00b\r\n")),
    "control character in a value": (400, get(b"X: a\x01b\r\n")),
    # hosts
    "no Host": (400, get(host=b"")),
    "two Hosts": (400, get(b"Host: localhost\r\n")),
    "two Hosts in HTTP 1.0": (400, get(b"Host: localhost\r\n", version=b"HTTP/1.0")),
    "Host with user": (400, get(host=b"Host: a@b\r\n")),
    "Host with path": (400, get(host=b"Host: a/b\r\n")),
    "Host with blank": (400, get(host=b"Host: a b\r\n")),
    "list of Hosts": (400, get(host=b"Host: a:1:2\r\n")),
    # request line
    "HTTP 0.9": (400, get(version=b"HTTP/0.9")),
    "HTTP 1.2": (400, get(version=b"HTTP/1.2")),
    "HTTP 2.0": (400, get(version=b"HTTP/2.0")),
    "preface of HTTP 2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "small http": (400, get(version=b"http/1.1")),
    "blank after the version": (400, get(version=b"HTTP/1.1 ")),
    "tabs": (400, b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    "unknown method": (400, b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "CONNECT": (400, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "no path": (400, get(path=b"http://b")),
    "control character in the path": (400, get(path=b"/\x01")),
    "raw UTF-8 in the path": (400, get(path=b"/\xc3\xa9")),
    # sizes
    "one large header": (431, get(b"X: " + b"y" * 65_536 + b"\r\n")),
    "a large header without end": (431, b"GET /api/tags HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 300_000),
    "a large path": (431, get(path=b"/" + b"y" * 65_536)),
    "many large headers": (431, get(b"".join(b"X%d: " % n + b"y" * 1000 + b"\r\n" for n in range(70)))),
    "101 headers": (431, get(b"X: y\r\n" * 100)),
    # bodies
    "compressed body": (415, post(b"Content-Encoding: gzip\r\nContent-Length: 2\r\n", b"hi")),
}

ACCEPTED = {
    "plain": post(b"Content-Length: 2\r\nConnection: close\r\n", b"hi"),
    "chunked": CHUNKED + b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
    "chunk extension": CHUNKED + b"2;a=b\r\nhi\r\n0\r\n\r\n",
    "trailer": CHUNKED + b"2\r\nhi\r\n0\r\nX-Trailer: 1\r\nHost: evil\r\n\r\n",
    "Chunked": post(b"Transfer-Encoding: Chunked\r\nConnection: close\r\n", b"2\r\nhi\r\n0\r\n\r\n"),
    "identity content": post(b"Content-Encoding: identity\r\nContent-Length: 2\r\nConnection: close\r\n", b"hi"),
    "leading line ends": b"\r\n\r\n" + post(b"Content-Length: 2\r\nConnection: close\r\n", b"hi"),
    "HTTP 1.0 without Host": b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    "IPv6 Host": b"POST / HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    "empty Host": b"POST / HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    "100 headers": post(b"X: y\r\n" * 97 + b"Content-Length: 2\r\nConnection: close\r\n", b"hi"),
    "a head just within": post(b"X: " + b"y" * 65_000 + b"\r\nContent-Length: 2\r\nConnection: close\r\n", b"hi"),
    "upgrade to HTTP 2": post(b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", b"hi"),
    "upgrade with chunks": post(
        b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n"
    ),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """``/echo`` and others tell what they got; ``/stream`` and ``/wait`` go on until the client leaves."""
    path, told = scope["path"], scope["state"]["told"]
    if path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
    if path == "/endless":
        left = asyncio.Event()
        scope["extensions"][DEPARTURE].watch(left.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        told.put((path, "disconnected"))
        return
    if path == "/pieces":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for piece in (b"one", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if path == "/told":
        left = asyncio.Event()
        scope["extensions"][DEPARTURE].watch(left.set)
        await left.wait()
        told.put((path, "disconnected"))
        return
    if path in {"/stream", "/wait"}:
        while (await receive())["type"] != "http.disconnect":
            pass
        told.put((path, "disconnected"))
        return
    body = b""
    more = path != "/deaf"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            told.put((path, "disconnected"))
            return
        body += message["body"]
        more = message["more_body"]
    headers = [name.decode() for name, _ in scope["headers"]]
    reply = json.dumps({"path": path, "body": body.decode(), "headers": headers}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": reply, "more_body": False})


class Recorded(StrictProtocol):
    """Notes whether accepted sockets send at once."""

    limits = LIMITS
    nodelay: ClassVar[list[int]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        self.nodelay.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def tell(status: int, message: str, path: bytes) -> bytes:
    return json.dumps({"error": message, "status": status, "path": path.decode()}).encode()


class Served:
    """A uvicorn server in a thread, and what its app told."""

    def __init__(self, protocol: type[StrictProtocol]) -> None:
        self.told: queue.Queue[tuple[str, str]] = queue.Queue()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()

        async def stateful(scope: Any, receive: Any, send: Any) -> None:
            scope["state"] = {"told": self.told}
            await app(scope, receive, send)

        config = uvicorn.Config(stateful, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.server.serve(sockets=[self.listener]))

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def heard_leaving(self, path: str) -> bool:
        """Whether the app heard that the client of ``path`` left; others' news are skipped."""
        while self.told.get(timeout=5) != (path, "disconnected"):
            pass
        return True


def serve(protocol: type[StrictProtocol]) -> Iterator[Served]:
    served = Served(protocol)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    yield from serve(strict_protocol(LIMITS, tell))


@pytest.fixture
def hasty() -> Iterator[Served]:
    yield from serve(strict_protocol(HttpLimits(head_time=0.05, body_silence=0.05, linger=0.05), tell))


@pytest.fixture
def impatient() -> Iterator[Served]:
    yield from serve(strict_protocol(HttpLimits(unread=0.05), tell))


def test_who_leaves_an_answer_unread_is_cut_and_what_ran_for_it_ends(impatient: Served) -> None:
    with impatient.connect() as client:
        client.sendall(get(path=b"/endless"))
        assert impatient.heard_leaving("/endless")
        assert not read_all(client).endswith(b"0\r\n\r\n"), "nobody takes it for the whole answer"


def read_all(client: socket.socket) -> bytes:
    """Everything up to the end of the connection."""
    pieces = []
    while piece := client.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def read_reply(client: socket.socket) -> tuple[int, dict[bytes, bytes], bytes]:
    """One reply with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        assert piece, f"closed after {data!r}"
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status, headers = read_head(head)
    while len(body) < int(headers[b"content-length"]):
        body += client.recv(65536)
    return status, headers, body


def read_head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    line, *rest = head.split(b"\r\n")
    return int(line.split()[1]), dict(field.lower().split(b": ", 1) for field in rest)


def check_refusal(reply: bytes, status: int) -> dict[str, Any]:
    """A refusal is one JSON reply that announces the end of the connection."""
    head, _, body = reply.partition(b"\r\n\r\n")
    found, headers = read_head(head)
    assert found == status, reply
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"connection"] == b"close"
    assert int(headers[b"content-length"]) == len(body)
    told: dict[str, Any] = json.loads(body)
    assert told["error"]
    assert told["status"] == status
    return told


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_requests_are_refused_and_the_connection_ends(served: Served, name: str) -> None:
    status, raw = REFUSED[name]
    with served.connect() as client:
        client.sendall(raw)
        check_refusal(read_all(client), status)


@pytest.mark.parametrize("name", [name for name, (_, raw) in REFUSED.items() if len(raw) < 1000])
def test_hostile_requests_are_refused_byte_by_byte(served: Served, name: str) -> None:
    status, raw = REFUSED[name]
    with served.connect() as client:
        for at in range(len(raw)):
            client.sendall(raw[at : at + 1])
        check_refusal(read_all(client), status)


@pytest.mark.parametrize("byte_by_byte", [False, True])
@pytest.mark.parametrize("name", ACCEPTED)
def test_honest_requests_are_served(served: Served, name: str, byte_by_byte: bool) -> None:
    raw = ACCEPTED[name]
    with served.connect() as client:
        for at in range(0, len(raw), step := 1 if byte_by_byte and len(raw) < 2000 else len(raw)):
            client.sendall(raw[at : at + step])
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert read_head(head)[0] == 200, head
        reply = json.loads(body)
        assert reply["body"] == "hi"
        assert "x-trailer" not in reply["headers"]
        assert reply["headers"].count("host") <= 1


def test_a_body_without_length_goes_in_chunks_or_ends_with_the_connection(served: Served) -> None:
    expected = {
        b"HTTP/1.1": (b"chunked", b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        b"HTTP/1.0": (None, b"onetwo"),
    }
    for version, (coding, text) in expected.items():
        with served.connect() as client:
            client.sendall(get(b"Connection: close\r\n", path=b"/pieces", version=version))
            head, _, body = read_all(client).partition(b"\r\n\r\n")
            assert read_head(head)[1].get(b"transfer-encoding") == coding
            assert read_head(head)[1][b"connection"] == b"close"
            assert body == text


def test_head_has_the_head_and_no_body(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"HEAD /echo HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"Connection: close\r\n"))
        head, second = read_all(client).split(b"HTTP/1.1 200 OK")[1:]
        assert head.endswith(b"\r\n\r\n")
        assert b"content-length: " in head
        assert second.endswith(b"}")


def test_a_refusal_is_worded_for_its_path(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /v1/embeddings?x=1 HTTP/1.1\r\n" + HOST + b"Content-Encoding: br\r\n\r\n")
        assert check_refusal(read_all(client), 415)["path"] == "/v1/embeddings"


def test_small_replies_are_sent_at_once() -> None:
    for served in serve(Recorded):
        with served.connect() as client:
            client.sendall(get(b"Connection: close\r\n"))
            read_all(client)
    assert [bool(value) for value in Recorded.nodelay] == [True]


def test_refusals_are_plain_json_where_no_dialect_words_them() -> None:
    for served in serve(strict_protocol(LIMITS)):
        with served.connect() as client:
            client.sendall(b"FOO / HTTP/1.1\r\n\r\n")
            body = read_all(client).partition(b"\r\n\r\n")[2]
            assert json.loads(body) == {"error": "malformed HTTP request: Invalid method encountered"}


def test_the_body_limit_is_32_mib_by_default() -> None:
    assert HttpLimits().body == canonical_limits.BODY == 32 * 1024 * 1024


def test_a_large_body_hears_413_though_it_is_sent_whole(served: Served) -> None:
    size = 20_000_000
    with served.connect() as client:
        sender = threading.Thread(target=client.sendall, args=(post(b"Content-Length: %d\r\n" % size, b"x" * size),))
        sender.start()
        check_refusal(read_all(client), 413)
        sender.join()


def test_expect_is_granted_only_within_the_limit(served: Served) -> None:
    with served.connect() as client:
        client.sendall(post(b"Expect: 100-continue\r\nContent-Length: %d\r\n" % (BODY + 1)))
        check_refusal(read_all(client), 413)
    with served.connect() as client:
        client.sendall(post(b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n"))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hi")
        assert json.loads(read_all(client).partition(b"\r\n\r\n")[2])["body"] == "hi"


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"".join(get(path=b"/%d" % n) for n in range(10)) + get(b"Connection: close\r\n", path=b"/end"))
        replies = read_all(client).split(b"HTTP/1.1 200")[1:]
        paths = [json.loads(reply.partition(b"\r\n\r\n")[2])["path"] for reply in replies]
        assert paths == [*(f"/{n}" for n in range(10)), "/end"]


def test_too_many_pipelined_requests_are_refused_after_the_answers(served: Served) -> None:
    with served.connect() as client:
        client.sendall(get() * 200)
        *answers, refusal = read_all(client).split(b"HTTP/1.1 ")[1:]
        assert all(answer.startswith(b"200") for answer in answers)
        check_refusal(b"HTTP/1.1 " + refusal, 400)


def test_garbage_behind_a_request_does_not_cut_into_its_answer(served: Served) -> None:
    with served.connect() as client:
        client.sendall(get() + b"GARBAGE\r\n\r\n")
        answer, refusal = read_all(client).split(b"HTTP/1.1 ")[1:]
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == "/echo"
        check_refusal(b"HTTP/1.1 " + refusal, 400)


def test_an_upgrade_is_ignored_and_the_next_request_is_served(served: Served) -> None:
    with served.connect() as client:
        wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        client.sendall(get(wish, path=b"/one") + get(b"Connection: close\r\n", path=b"/two"))
        replies = read_all(client).split(b"HTTP/1.1 ")[1:]
        assert [json.loads(reply.partition(b"\r\n\r\n")[2])["path"] for reply in replies] == ["/one", "/two"]


def test_a_connection_is_kept_after_an_answer_that_did_not_wait_for_the_body(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /deaf HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n")
        assert read_reply(client)[0] == 200
        client.sendall(b"late" + get(path=b"/next"))
        assert json.loads(read_reply(client)[2])["path"] == "/next"


def test_a_bad_body_after_the_answer_ends_the_connection_without_a_second(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"POST /deaf HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert read_reply(client)[0] == 200
        client.sendall(b"nonsense\r\n")
        assert read_all(client) == b""


def leave_by_close(client: socket.socket) -> None:
    client.close()


def leave_by_reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def leave_by_half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


LEAVING = [leave_by_close, leave_by_reset, leave_by_half_close]


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("path", ["/wait", "/stream", "/told"])
def test_the_app_hears_at_once_that_the_client_left(
    served: Served, path: str, leave: Callable[[socket.socket], None]
) -> None:
    with served.connect() as client:
        client.sendall(get(path=path.encode()))
        if path == "/stream":
            assert b"200" in client.recv(65536)
        leave(client)
        assert served.heard_leaving(path)


@pytest.mark.parametrize("leave", LEAVING)
def test_the_app_hears_it_within_a_body(served: Served, leave: Callable[[socket.socket], None]) -> None:
    with served.connect() as client:
        client.sendall(b"POST /body HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nha")
        leave(client)
        assert served.heard_leaving("/body")


@pytest.mark.parametrize("leave", LEAVING)
@pytest.mark.parametrize("early", [get(), get() * 3, b"GET /half", b"\r\n"])
def test_the_app_hears_it_behind_pipelined_data(
    served: Served, early: bytes, leave: Callable[[socket.socket], None]
) -> None:
    for together in (True, False):
        with served.connect() as client:
            client.sendall(get(path=b"/stream") + (early if together else b""))
            assert b"200" in client.recv(65536)
            client.sendall(early)
            leave(client)
            assert served.heard_leaving("/stream")


def test_a_slow_head_and_a_silent_body_hear_408(hasty: Served) -> None:
    with hasty.connect() as client:
        client.sendall(b"GET /api/tags HTTP/1.1\r\nHo")
        assert check_refusal(read_all(client), 408)["path"] == "/api/tags"
    with hasty.connect() as client:
        client.sendall(post(b"Content-Length: 4\r\n", b"ha"))
        assert check_refusal(read_all(client), 408)["path"] == "/api/chat"
    assert hasty.heard_leaving("/api/chat")


def test_a_connection_that_says_nothing_is_closed(hasty: Served) -> None:
    with hasty.connect() as client:
        assert read_all(client) == b""


def test_a_refused_client_that_never_stops_is_cut(hasty: Served) -> None:
    with hasty.connect() as client:
        client.sendall(b"FOO / HTTP/1.1\r\n\r\n")
        check_refusal(read_all(client), 400)
        with pytest.raises(OSError, match=r"pipe|reset|abort"):  # noqa: PT012  # the cut shows on one of the sends
            while True:
                client.sendall(b"x" * 1000)


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes only when the test says so."""

    now = 1000.0

    def time(self) -> float:
        return self.now


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.writes = 0
        self.closed = self.ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data
        self.writes += 1

    def write_eof(self) -> None:
        self.ended = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Rig:
    """A protocol on a wire, its app and its clock."""

    def __init__(self, loop: Clock, **bounds: Any) -> None:
        self.loop = loop
        self.go = asyncio.Event()
        self.heard: list[str] = []
        self.at_once = 0
        """A status: the answer does not wait for the body."""

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            if self.at_once:
                head = [(b"content-length", b"0")]
                await send({"type": "http.response.start", "status": self.at_once, "headers": head})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await self.go.wait()
            while True:
                message = await receive()
                self.heard.append(message["type"])
                if message["type"] == "http.disconnect":
                    return
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok", "more_body": False})

        config = uvicorn.Config(slow, ws="none", lifespan="off", log_config=None, timeout_keep_alive=75)
        protocol_class = strict_protocol(HttpLimits(head_time=10, body_silence=30, linger=2, **bounds), tell)
        self.protocol: StrictProtocol = protocol_class(
            config=config, server_state=uvicorn.Server(config).server_state, app_state={}, _loop=loop
        )
        self.wire = Wire(self.protocol)
        self.protocol.connection_made(self.wire)

    async def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)

    async def take(self) -> bytes:
        for _ in range(10):
            await asyncio.sleep(0)
        written, self.wire.written = self.wire.written, b""
        return written


def on_a_clock(test: Callable[[Rig], Any]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=Clock) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, Clock)

            async def main() -> None:
                await test(Rig(loop))

            runner.run(main())

    run.__name__ = test.__name__
    return run


REQUEST = b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhaha"


@on_a_clock
async def test_the_head_has_ten_seconds_from_its_first_byte_however_it_drips(rig: Rig) -> None:
    await rig.pass_time(9)
    for byte in range(9):
        rig.protocol.data_received(REQUEST[byte : byte + 1])
        assert rig.wire.written == b""
        await rig.pass_time(1)
    await rig.pass_time(1.1)
    check_refusal(rig.wire.written, 408)
    assert rig.wire.ended
    await rig.pass_time(2.1)
    assert rig.wire.closed


@on_a_clock
async def test_who_was_refused_a_file_sends_no_more_of_it_than_any_body_may_have(rig: Rig) -> None:
    for status in (200, 403):
        one = Rig(rig.loop, body=1000, uploads=(b"/files/",))
        one.at_once = status
        one.protocol.data_received(b"POST /files/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        assert f" {status} ".encode() in await one.take()
        for _ in range(10):
            one.protocol.data_received(b"x" * 100)
        assert not one.wire.ended
        one.protocol.data_received(b"x")
        assert one.wire.ended is (status == 403)
        assert await one.take() == b"", "no second answer"
        if status == 200:
            one.protocol.data_received(b"x" * (100_000 - 1001) + REQUEST.replace(b"/api", b"/files"))
            assert b" 200 " in await one.take(), "the connection goes on"
        one.wire.close()
    await rig.pass_time(0)


@on_a_clock
async def test_files_have_a_limit_of_their_own(rig: Rig) -> None:
    for path, refused in ((b"/files/x", False), (b"/other", True)):
        for framing in (b"Content-Length: 2000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n"):
            one = Rig(rig.loop, body=1000, upload=5000, uploads=(b"/files/",))
            one.protocol.data_received(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + framing + b"x" * 2000)
            assert one.wire.ended is refused
            one.wire.close()
    await rig.pass_time(0)


@on_a_clock
async def test_line_ends_before_a_request_buy_no_time(rig: Rig) -> None:
    for _ in range(10):
        rig.protocol.data_received(b"\r\n")
        await rig.pass_time(1)
    await rig.pass_time(0.1)
    assert rig.wire.closed
    assert rig.wire.written == b""


@on_a_clock
async def test_a_body_may_be_slow_but_not_silent(rig: Rig) -> None:
    rig.go.set()
    rig.protocol.data_received(REQUEST[:-4])
    for byte in b"hah":
        await rig.pass_time(29)
        rig.protocol.data_received(bytes([byte]))
    await rig.pass_time(29)
    assert not rig.wire.written
    await rig.pass_time(1.1)
    check_refusal(rig.wire.written, 408)
    assert rig.heard[-1] == "http.disconnect"


@on_a_clock
async def test_a_slow_answer_is_not_the_clients_fault(rig: Rig) -> None:
    rig.protocol.data_received(REQUEST)
    await rig.pass_time(100_000)
    assert not rig.wire.closed
    rig.go.set()
    assert (await rig.take()).endswith(b"ok")


@on_a_clock
async def test_an_idle_connection_lives_as_long_as_it_is_kept_alive(rig: Rig) -> None:
    rig.go.set()
    for _ in range(3):
        rig.protocol.data_received(REQUEST)
        assert (await rig.take()).endswith(b"ok")
        await rig.pass_time(74)
        assert not rig.wire.closed
    await rig.pass_time(1.1)
    assert rig.wire.closed
    assert not rig.wire.written


@on_a_clock
async def test_the_second_head_has_its_own_ten_seconds(rig: Rig) -> None:
    rig.go.set()
    rig.protocol.data_received(REQUEST)
    assert (await rig.take()).endswith(b"ok")
    await rig.pass_time(60)
    rig.protocol.data_received(REQUEST[:10])
    await rig.pass_time(9.9)
    assert not rig.wire.written
    await rig.pass_time(0.2)
    check_refusal(rig.wire.written, 408)


@on_a_clock
async def test_a_client_that_waits_for_100_continue_is_not_silent(rig: Rig) -> None:
    rig.protocol.data_received(REQUEST[:-6] + b"Expect: 100-continue\r\n\r\n")
    await rig.pass_time(1000)
    assert not rig.wire.written
    rig.go.set()
    assert await rig.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.protocol.data_received(b"haha")
    assert (await rig.take()).endswith(b"ok")


def test_a_departure_is_told_once_also_to_those_who_come_late() -> None:
    heard: list[str] = []
    departure = Departure()
    departure.watch(lambda: heard.append("unwatched"))
    departure.unwatch()
    departure.watch(lambda: heard.append("watched"))
    departure.tell()
    departure.tell()
    departure.watch(lambda: heard.append("late"))
    assert heard == ["watched", "late"]


@on_a_clock
async def test_requests_leave_no_cycles_behind(rig: Rig) -> None:
    rig.go.set()
    rig.protocol.data_received(REQUEST)
    await rig.take()
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            rig.protocol.data_received(REQUEST)
            assert (await rig.take()).endswith(b"ok")
        assert gc.collect() < 50
    finally:
        gc.enable()


@on_a_clock
async def test_head_and_first_piece_are_one_write(rig: Rig) -> None:
    rig.go.set()
    rig.protocol.data_received(REQUEST)
    await rig.take()
    assert rig.wire.writes == 1


@on_a_clock
async def test_early_data_waits_for_its_turn(rig: Rig) -> None:
    rig.protocol.data_received(REQUEST)
    await rig.take()
    for at in range(len(REQUEST)):
        rig.protocol.data_received(REQUEST[at : at + 1])
    assert await rig.take() == b""
    await rig.pass_time(50)
    rig.go.set()
    assert (await rig.take()).count(b"HTTP/1.1 200") == 2
    await rig.pass_time(74)
    assert not rig.wire.closed


@on_a_clock
async def test_a_fast_connection_sets_its_timer_once(rig: Rig) -> None:
    rig.go.set()
    timers = 0
    call_at = rig.loop.call_at

    def count(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*args, **kwargs)

    rig.loop.call_at = count  # type: ignore[method-assign]
    for _ in range(100):
        rig.protocol.data_received(REQUEST)
        assert (await rig.take()).endswith(b"ok")
    assert timers == 0
