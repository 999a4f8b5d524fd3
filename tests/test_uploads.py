"""Files that come in over real sockets: longer than any other body may be, held back, given up, refused, not wanted."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from canonical.digests import digest_of
from tests.serving import serving

BODY = 64 * 1024
UPLOAD = 8 * 1024 * 1024
CONFIG = f"""
listeners: [{{port: 0}}]
backends: {{shelf: {{type: "tests.shelf:Shelf"}}}}
limits: {{body: {BODY}, upload: {UPLOAD}, body_silence: 0.3}}
keys: [may-do-all, {{key: use-only, manage: false}}]
"""
KEY = {"Authorization": "Bearer may-do-all"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(CONFIG) as served:
        yield served.url


def ask(url: str, method: str, path: str, body: object = None, headers: dict[str, str] = KEY) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers)  # type: ignore[arg-type]  # bytes or pieces
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def there(url: str, digest: str) -> bool:
    return ask(url, "HEAD", f"/api/blobs/{digest}")[0] == 200


def raw(url: str) -> socket.socket:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return socket.create_connection((parts.hostname, parts.port or 0), timeout=20)


def head(digest: str, *lines: str) -> bytes:
    told = ["Host: localhost", "Authorization: Bearer may-do-all", *lines]
    return (f"POST /api/blobs/{digest} HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in told) + "\r\n").encode()


def rest(sock: socket.socket) -> bytes:
    found = b""
    try:
        while data := sock.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_may_be_longer_than_any_other_body(url, chunked):
    data = bytes([chunked]) * (BODY * 5)
    digest = digest_of(data)
    body = (data[at : at + 10_000] for at in range(0, len(data), 10_000)) if chunked else data
    assert ask(url, "POST", f"/api/blobs/{digest}", body) == (201, b"")
    assert there(url, digest)
    assert ask(url, "POST", "/api/chat", data)[0] == 413


def test_a_file_past_its_own_limit_is_refused(url):
    with raw(url) as sock:
        sock.sendall(head("sha256:" + "0" * 64, f"Content-Length: {UPLOAD + 1}"))
        assert rest(sock).startswith(b"HTTP/1.1 413 ")
    data = b"x" * (UPLOAD + 1)
    with raw(url) as sock:
        sock.sendall(head(digest_of(data), "Transfer-Encoding: chunked"))
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(9):
            sock.sendall(piece)
        assert rest(sock).startswith(b"HTTP/1.1 413 ")
    assert not there(url, digest_of(data))


def test_a_client_that_leaves_half_way_leaves_nothing(url):
    data = b"half" * 1000
    for leave in (lambda sock: sock.close(), lambda sock: sock.shutdown(socket.SHUT_WR)):
        with raw(url) as sock:
            sock.sendall(head(digest_of(data), f"Content-Length: {len(data)}") + data[:2000])
            leave(sock)
        assert not there(url, digest_of(data))


def test_a_client_that_falls_silent_hears_408(url):
    data = b"silent" * 1000
    with raw(url) as sock:
        sock.sendall(head(digest_of(data), f"Content-Length: {len(data)}") + data[:2000])
        assert rest(sock).startswith(b"HTTP/1.1 408 ")
    assert not there(url, digest_of(data))


def test_a_file_with_another_digest_is_refused_with_both(url):
    digest = digest_of(b"one")
    status, body = ask(url, "POST", f"/api/blobs/{digest}", b"two")
    assert (status, json.loads(body)["error"]) == (
        400,
        f'digest mismatch, expected "{digest}", got "{digest_of(b"two")}"',
    )
    assert not there(url, digest)


def test_a_file_that_is_there_is_passed_over_and_the_connection_stays(url):
    """Clients that send it all the same, as the official one does, find their answer behind it."""
    data = b"known" * BODY
    digest = digest_of(data)
    assert ask(url, "POST", f"/api/blobs/{digest}", data)[0] == 201
    with raw(url) as sock:
        sock.sendall(head(digest, f"Content-Length: {len(data)}") + data)
        sock.sendall(head(digest, "Content-Length: 0", "Connection: close"))
        answers = rest(sock)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    with raw(url) as sock:
        sock.sendall(head(digest, f"Content-Length: {len(data)}", "Expect: 100-continue"))
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 "), "it is not asked for"


@pytest.mark.parametrize(
    ("key", "status"), [({"Authorization": "Bearer use-only"}, 403), ({"Authorization": "Bearer wrong"}, 401)]
)
def test_who_may_not_send_files_sends_none(url, key, status):
    digest = digest_of(b"x" * 1000)
    assert ask(url, "POST", f"/api/blobs/{digest}", b"x" * 1000, key)[0] == status
    assert ask(url, "HEAD", f"/api/blobs/{digest}", headers=key)[0] == status
    assert not there(url, digest)
