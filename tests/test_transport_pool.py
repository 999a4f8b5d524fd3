"""The data path's HTTP client: connections kept and dropped, readers that leave or dawdle, waiting in order, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from backends.connection import Response
from backends.transport import Address, Client, Limits
from canonical.errors import BackendError, BackendUnavailable, Busy
from tests.calling import SOON, SSE, Run, client, each_loop, post, until
from tests.faulty import Peer, always, chunk, endless, faulty, once, reply, then_silent
from tests.test_transport import BROKEN, WAYS
from tests.tls import make_certificate

UNKEPT = {
    "close": reply(200, b"hello", headers=["Connection: close"]),
    "http/1.0": WAYS["http/1.0"].replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    "bytes after the end": reply(200, b"hello") + reply(200, b"another"),
    "a body after HEAD": reply(200, b"hello"),
}


@each_loop
@pytest.mark.parametrize("why", UNKEPT)
def test_a_connection_out_of_order_is_not_kept(run: Run, why: str) -> None:
    async def scenario() -> None:
        async with faulty(always(UNKEPT[why])) as fake:
            http = client(fake.port)
            method = "HEAD" if "HEAD" in why else "POST"
            for expected in (1, 2):
                response = await http.send(http.head(method, "/"))
                assert await response.body() == (b"" if method == "HEAD" else b"hello")
                assert fake.connections == expected
            await http.close()

    run(scenario())


@each_loop
def test_an_old_connection_is_not_used(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, b"hello"))) as fake:
            http = client(fake.port, keep=0)
            for expected in (1, 2):
                await (await post(http)).body()
                assert fake.connections == expected
            await http.close()

    run(scenario())


@each_loop
def test_idle_connections_are_closed_in_time(run: Run) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(reply(200, b"hello"))
            await peer.gone()

        async with faulty(script) as fake:
            http = client(fake.port, keep=SOON)
            await (await post(http)).body()
            await fake.left.wait()
            await http.close()

    run(scenario())


@each_loop
def test_a_connection_that_the_kernel_knows_to_be_closed_is_not_used(run: Run) -> None:
    """The loop has had no turn between the close and the next request: only the kernel can tell."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            http = client(listening.getsockname()[1])
            sending = asyncio.create_task(post(http))
            first, _ = await loop.sock_accept(listening)
            await loop.sock_recv(first, 1000)
            await loop.sock_sendall(first, reply(200, b"one"))
            assert await (await sending).body() == b"one"
            sending = asyncio.create_task(post(http))
            first.close()
            second, _ = await loop.sock_accept(listening)
            await loop.sock_recv(second, 1000)
            await loop.sock_sendall(second, reply(200, b"two"))
            assert await (await sending).body() == b"two"
            second.close()
            await http.close()

    run(scenario())


@each_loop
def test_a_request_that_went_out_is_never_sent_again(run: Run) -> None:
    """A kept connection that dies under its second request: nobody knows whether the server began to generate."""

    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(reply(200, b"hello"))
            await peer.request()

        async with faulty(script) as fake:
            http = client(fake.port)
            await (await post(http)).body()
            with pytest.raises(BackendError, match="without an answer"):
                await post(http)
            assert (fake.connections, len(fake.requests)) == (1, 2)
            await http.close()

    run(scenario())


@each_loop
def test_an_answer_before_the_request_is_read_does_not_keep_the_connection(run: Run) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.reader.readuntil(b"\r\n\r\n")
            await peer.send(reply(413, b"too large"))
            await peer.faulty.left.wait()

        async with faulty(script) as fake:
            http = client(fake.port)
            for expected in (1, 2):
                response = await post(http, b"x" * 30_000_000)
                assert (response.status, await response.body()) == (413, b"too large")
                assert fake.connections == expected
            fake.left.set()
            await http.close()

    run(scenario())


@each_loop
def test_the_rest_of_a_drained_answer_keeps_the_connection(run: Run) -> None:
    async def scenario() -> None:
        step, sent = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(SSE + chunk(b"best"))
                await step.wait()
                await peer.send(chunk(b"rest"), chunk(b""))
                sent.set()

        async with faulty(script) as fake:
            http = client(fake.port)
            response = await post(http)
            assert await response.read() == b"best"
            response.drain()
            response.close()
            step.set()
            await sent.wait()
            await until(lambda: bool(http._idle))
            assert await (await post(http)).body() == b"bestrest"
            assert fake.connections == 1
            await http.close()

    run(scenario())


@each_loop
@pytest.mark.parametrize("rest", ["silent", "endless"])
def test_a_drained_answer_that_goes_on_is_cut_off(run: Run, rest: str) -> None:
    async def scenario() -> None:
        head = SSE + chunk(b"best")
        script = then_silent(head) if rest == "silent" else endless(head, chunk(b"x" * 1000))
        async with faulty(script) as fake:
            http = client(fake.port, linger=SOON if rest == "silent" else 60)
            response = await post(http)
            await response.read()
            response.drain()
            await fake.left.wait()
            await http.close()

    run(scenario())


# Leaving, waiting, and reading slowly.


@each_loop
@pytest.mark.parametrize("when", ["before the head", "in the stream"])
def test_a_cancelled_reader_closes_the_connection(run: Run, when: str) -> None:
    async def scenario() -> None:
        reached = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if when == "in the stream":
                await peer.send(SSE + chunk(b"hello"))
            else:
                reached.set()
            await peer.gone()

        async def read() -> None:
            response = await post(http)
            try:
                while await response.read():
                    reached.set()
            finally:
                response.close()

        async with faulty(script) as fake:
            http = client(fake.port)
            task = asyncio.create_task(read())
            await reached.wait()
            task.cancel()
            await fake.left.wait()
            assert http._open <= 1
            await http.close()

    run(scenario())


@each_loop
def test_a_slow_reader_stops_the_backend(run: Run) -> None:
    async def scenario() -> None:
        piece = chunk(b"x" * 60_000)
        count = 500

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(SSE)
            for _ in range(count):
                await peer.send(piece)
                peer.faulty.connections += 1  # pieces accepted, as the count of them
            await peer.send(chunk(b""))

        async with faulty(script) as fake:
            http = client(fake.port)
            response = await post(http)
            await until(lambda: bool(response._paused))
            for _ in range(200):  # turns of the loop in which more would come, if anything let it
                await asyncio.sleep(0)
            assert response._size <= 1024 * 1024
            assert fake.connections < count
            total = 0
            while data := await response.read():
                total += len(data)
            assert total == count * 60_000
            await http.close()

    run(scenario())


@each_loop
def test_a_slow_reader_is_not_the_backends_silence(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(once(SSE, *[chunk(b"x" * 60_000)] * 100, chunk(b""))) as fake:
            http = client(fake.port, idle=SOON)
            response = await post(http)
            await until(lambda: bool(response._paused))
            response._last -= 3600  # an hour without a read
            response._tick()
            assert len(await response.body()) == 6_000_000
            await http.close()

    run(scenario())


@each_loop
def test_who_waits_for_a_connection_is_served_in_order(run: Run) -> None:
    async def scenario() -> None:
        step = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                request = await peer.request()
                await step.wait()
                # Every second connection ends with its answer, so that places are handed on as well as connections.
                last = request.body == b"1"
                await peer.send(reply(200, request.body, headers=["Connection: close"] if last else []))

        async with faulty(script) as fake:
            http = client(fake.port, connections=1)
            served: list[bytes] = []

            async def ask(body: bytes) -> None:
                served.append(await (await post(http, body)).body())

            tasks = []
            for body in (b"0", b"1", b"2", b"3"):
                tasks.append(asyncio.create_task(ask(body)))
                await asyncio.sleep(0)
            left = asyncio.create_task(ask(b"left"))
            await asyncio.sleep(0)
            left.cancel()
            step.set()
            await asyncio.gather(*tasks)
            assert served == [b"0", b"1", b"2", b"3"]
            assert [request.body for request in fake.requests] == served
            assert fake.connections == 2
            await http.close()

    run(scenario())


@each_loop
def test_too_many_or_too_long_waits_are_refused(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(then_silent()) as fake:
            http = Client("fake", Address("127.0.0.1", fake.port), Limits(connections=1, waiting=1, wait=SOON))
            first = asyncio.create_task(post(http))
            await asyncio.sleep(0)
            second = asyncio.create_task(post(http))
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="1 requests wait already") as caught:
                await post(http)
            assert (caught.value.status, caught.value.retry_after) == (503, 1)
            with pytest.raises(Busy, match=r"was busy for 0.05 s"):
                await second
            first.cancel()
            await fake.left.wait()
            await http.close()

    run(scenario())


@each_loop
@pytest.mark.parametrize("moment", range(12))
def test_a_place_is_freed_whenever_its_request_is_cancelled(run: Run, moment: int) -> None:
    """Cancel at every turn of the loop in the life of a request: the only place is always there for the next."""

    async def scenario() -> None:
        async with faulty(always(reply(200, b"hello"))) as fake:
            http = client(fake.port, connections=1)
            for keep in (True, False):
                tasks = [asyncio.create_task(post(http)) for _ in range(3)]
                for _ in range(moment):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    if isinstance(result, Response):
                        result.close()
                assert await (await post(http)).body() == b"hello"
                if not keep:
                    await http.close()

    run(scenario())


@each_loop
def test_closing_the_client_ends_everything(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(then_silent(SSE)) as fake:
            http = client(fake.port, connections=1)
            response = await post(http)
            waiting = asyncio.create_task(post(http))
            await asyncio.sleep(0)
            await http.close()
            await fake.left.wait()
            with pytest.raises(BackendError, match="closed before its end"):
                await response.read()
            with pytest.raises(BackendUnavailable, match="being closed"):
                await waiting
            with pytest.raises(BackendUnavailable, match="being closed"):
                await post(http)

    run(scenario())


@each_loop
def test_nothing_is_left_open_after_many_good_and_bad_requests(run: Run) -> None:
    async def scenario() -> None:
        faults = [data for data, _ in BROKEN.values()] + list(WAYS.values())

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(faults[peer.number % len(faults)])

        async with faulty(script) as fake:
            http = client(fake.port, connections=4)

            async def ask() -> None:
                with suppress(BackendError):
                    await (await post(http)).body()

            await asyncio.gather(*(ask() for _ in range(100)))
            assert http._open <= 4
            assert not http._waiting
            await http.close()
            await until(lambda: not http._open)
            assert not http._all

    run(scenario())


# TLS.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@each_loop
def test_tls_trusts_what_it_is_told_to(run: Run, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    async def scenario() -> None:
        async with faulty(always(SSE + chunk(b"hello") + chunk(b"")), tls=context) as fake:
            address = Address("127.0.0.1", fake.port, tls=True, ca_file=str(certificate / "cert.pem"))
            trusting = Client("fake", address)
            for _ in range(2):
                assert await (await post(trusting)).body() == b"hello"
            assert fake.connections == 1
            assert fake.requests[0].headers["host"] == address.authority
            await trusting.close()

            blind = Client("fake", Address("127.0.0.1", fake.port, tls=True, verify=False))
            assert await (await post(blind)).body() == b"hello"
            await blind.close()

            strict = Client("fake", Address("127.0.0.1", fake.port, tls=True))
            with pytest.raises(BackendUnavailable, match="certificate is not trusted"):
                await post(strict)
            named = Client("fake", Address("localhost", fake.port, tls=True, ca_file=str(certificate / "cert.pem")))
            with pytest.raises(BackendUnavailable, match="certificate is not trusted"):
                await post(named)
            assert len(fake.requests) == 3

        async def plainly(peer: Peer) -> None:
            await peer.send(reply())

        async with faulty(plainly) as fake:
            plain = Client("fake", Address("127.0.0.1", fake.port, tls=True))
            with pytest.raises(BackendUnavailable, match="TLS failed"):
                await post(plain)

    run(scenario())


def test_a_head_cannot_be_split_by_a_value() -> None:
    http = Client("fake", Address("::1", 80))
    assert b"\r\nHost: [::1]\r\n" in http.head("GET", "/").prefix
    for path in ("/a b", "/a\r\nX: y", "/é"):
        with pytest.raises(ValueError, match="percent-encoded"):
            http.head("GET", path)
    with pytest.raises(ValueError, match="control character"):
        http.head("GET", "/", {"Authorization": "Bearer x\r\nX: y"})
