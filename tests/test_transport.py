"""The data path's HTTP client: what arrives whole, what is refused, and what takes too long."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.connection import Connection, Response
from backends.transport import Address, Client, Limits
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable
from tests.calling import SOON, SSE, Run, client, each_loop, post
from tests.cutting import cut
from tests.faulty import Peer, always, chunk, endless, faulty, once, reply, then_silent


@each_loop
def test_a_request_goes_out_as_prepared(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, b'{"a":1}'))) as fake:
            http = client(fake.port)
            for body in (b"{}", b"x" * 300_000):
                response = await post(http, body)
                assert (response.status, await response.body()) == (200, b'{"a":1}')
                assert response.header(b"content-type") == "application/json"
                assert response.header(b"absent") == ""
            response = await http.send(http.head("GET", "/v1/models"))
            await response.body()
            first, second, third = fake.requests
            assert (first.method, first.path, first.body) == ("POST", "/v1/x", b"{}")
            assert first.headers["host"] == f"127.0.0.1:{fake.port}"
            assert first.headers["accept-encoding"] == "identity"
            assert first.headers["x-test"] == "1"
            assert second.body == b"x" * 300_000
            assert (third.method, third.headers.get("content-length")) == ("GET", None)
            assert fake.connections == 1
            await http.close()

    run(scenario())


WAYS = {
    "length": reply(200, b"hello"),
    "chunked": SSE + chunk(b"hel") + chunk(b"lo") + chunk(b""),
    "trailers": SSE + chunk(b"hello") + b"0\r\nContent-Type: text/evil\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + reply(200, b"hello"),
    "until close": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhello",
    "http/1.0": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\nhello",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
}


@each_loop
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_frame_a_body(run: Run, way: str) -> None:
    async def scenario() -> None:
        async with faulty(once(WAYS[way])) as fake:
            http = client(fake.port)
            response = await post(http)
            assert (response.status, await response.body()) == (200, b"hello")
            assert "evil" not in response.header(b"content-type")
            assert await response.read() == b""
            await http.close()

    run(scenario())


class Wire:
    """A transport that only remembers what was asked of it."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.closed = False

    def get_extra_info(self, name: str) -> socket.socket:
        return self.sock

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None:
        self.closed = True


class Keeper:
    def __init__(self) -> None:
        self.kept = 0

    def returned(self, connection: Connection) -> None:
        self.kept += 1

    def lost(self, connection: Connection) -> None: ...


def fed(data: bytes, cuts: list[int], *, eof: bool) -> tuple[bytes | str, int, int]:
    """Body or error, status, and how often the connection was kept, of ``data`` read in slices."""

    async def scenario() -> tuple[bytes | str, int, int]:
        keeper, wire = Keeper(), Wire()
        connection = Connection(keeper, asyncio.get_running_loop())
        connection.connection_made(wire)  # type: ignore[arg-type]  # has what is used
        response = connection.response = Response(connection, name="fake", limits=Limits())
        for piece in cut(data, cuts):
            if piece and not wire.closed:
                connection.data_received(piece)
        if eof:
            connection.connection_lost(None)
        wire.sock.close()
        try:
            return await response.body(), response.status, keeper.kept
        except BackendError as error:
            return error.message, response.status, keeper.kept

    return asyncio.run(scenario())


@pytest.mark.parametrize("way", WAYS)
@given(cuts=st.lists(st.integers(0, 500), max_size=12))
def test_m5_any_split_of_the_bytes_gives_the_same_body(way: str, cuts: list[int]) -> None:
    kept = 0 if way in ("until close", "http/1.0") else 1
    assert fed(WAYS[way], cuts, eof=not kept) == (b"hello", 200, kept)


@pytest.mark.parametrize("way", WAYS)
def test_m5_one_byte_at_a_time_gives_the_same_body(way: str) -> None:
    assert fed(WAYS[way], list(range(len(WAYS[way]))), eof=True)[:2] == (b"hello", 200)


@given(cuts=st.lists(st.integers(0, 500), max_size=5), end=st.integers(0, 200))
def test_an_early_end_is_never_a_whole_answer(cuts: list[int], end: int) -> None:
    whole = WAYS["chunked"]
    body, _, kept = fed(whole[: min(end, len(whole) - 1)], cuts, eof=True)
    assert isinstance(body, str)
    assert "closed the connection" in body
    assert not kept


@each_loop
def test_answers_without_a_body(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(always(b"HTTP/1.1 204 No Content\r\n\r\n")) as fake:
            http = client(fake.port)
            for _ in range(2):
                response = await post(http)
                assert (response.status, await response.body()) == (204, b"")
            assert fake.connections == 1
            await http.close()
        async with faulty(always(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")) as fake:
            http = client(fake.port)
            for _ in range(2):
                response = await http.send(http.head("HEAD", "/"))
                assert (response.status, await response.body()) == (200, b"")
            assert fake.connections == 1
            await http.close()

    run(scenario())


@each_loop
def test_pieces_come_as_they_are_sent(run: Run) -> None:
    async def scenario() -> None:
        step = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(SSE + chunk(b"one"))
            await step.wait()
            await peer.send(chunk(b"two") + chunk(b"three"), chunk(b""))

        async with faulty(script) as fake:
            http = client(fake.port)
            response = await post(http)
            assert await response.read() == b"one"
            step.set()
            assert await response.read() == b"twothree"
            assert await response.read() == b""
            await http.close()

    run(scenario())


# Faults.

HUGE = b"x" * 70_000
BROKEN = {
    "no http": (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
    "bad length": (b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello", "malformed"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "malformed"),
    "length and chunks": (SSE.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + chunk(b"hello"), "malformed"),
    "bad chunk": (SSE + b"xyz\r\nhello\r\n", "malformed"),
    "compressed": (reply(200, b"hello", headers=["Content-Encoding: gzip"]), "compressed"),
    "compressed transfer": (SSE.replace(b"chunked", b"gzip, chunked") + chunk(b"hello") + chunk(b""), "transfer coding"),
    "protocol switch": (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "malformed"),
    "huge header": (b"HTTP/1.1 200 OK\r\nX: " + HUGE + b"\r\nContent-Length: 5\r\n\r\nhello", "malformed"),
    "many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 12_000 + b"Content-Length: 5\r\n\r\nhello", "malformed"),
    "nothing": (b"", "without an answer"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "without an answer"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "in the middle"),
    "half a chunk": (SSE + chunk(b"hello")[:-4], "in the middle"),
    "no last chunk": (SSE + chunk(b"hello"), "in the middle"),
}  # fmt: skip


@each_loop
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_is_a_backend_error(run: Run, fault: str) -> None:
    async def scenario() -> None:
        data, words = BROKEN[fault]
        async with faulty(once(data)) as fake:
            http = client(fake.port)
            with pytest.raises(BackendError, match=words) as caught:
                await (await post(http)).body()
            assert caught.value.status == 502
            assert "'fake'" in caught.value.message
            assert len(fake.requests) == 1
            await http.close()

    run(scenario())


@each_loop
def test_a_reset_is_a_backend_error(run: Run) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            peer.reset()

        async with faulty(script) as fake:
            http = client(fake.port)
            with pytest.raises(BackendError, match="without an answer"):
                await post(http)
            await http.close()

    run(scenario())


ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 1000),
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: y\r\n\r\n"),
    "chunk extension": (SSE + b"5;x=", b"y" * 1000),
    "trailer": (SSE + chunk(b"hello") + b"0\r\nX: ", b"y" * 1000),
    "trailers": (SSE + chunk(b"hello") + b"0\r\n", b"X: y\r\n" * 100),
    "body": (b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 10_000),
}


@each_loop
@pytest.mark.parametrize("what", ENDLESS)
def test_what_is_endless_ends_within_its_limit(run: Run, what: str) -> None:
    async def scenario() -> None:
        async with faulty(endless(*ENDLESS[what])) as fake:
            http = Client("fake", Address("127.0.0.1", fake.port), Limits(reply=1_000_000))
            with pytest.raises(BackendError, match="more than" if what == "body" else "endless"):
                await (await post(http)).body()
            await fake.left.wait()
            await http.close()

    run(scenario())


@each_loop
def test_a_caller_can_ask_for_less(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"y" * 10_000)) as fake:
            http = client(fake.port)
            with pytest.raises(BackendError, match="more than 50000 bytes"):
                await (await post(http)).body(50_000)
            await fake.left.wait()
            await http.close()

    run(scenario())


SILENCE = {
    "before the head": (b"", {"first_byte": SOON}, "sent no answer"),
    "in the head": (b"HTTP/1.1 200 OK\r\nContent-Le", {"first_byte": SOON}, "sent no answer"),
    "after the head": (SSE, {"first_byte": SOON}, "sent no answer"),
    "after a piece": (SSE + chunk(b"hello"), {"idle": SOON}, "stopped sending"),
    "for good": (SSE + chunk(b"hello"), {"total": SOON}, "did not finish"),
}


@each_loop
@pytest.mark.parametrize("when", SILENCE)
def test_silence_is_a_timeout_and_closes(run: Run, when: str) -> None:
    async def scenario() -> None:
        data, limits, words = SILENCE[when]
        async with faulty(then_silent(data)) as fake:
            http = client(fake.port, **limits)
            with pytest.raises(BackendTimeout, match=words) as caught:
                await (await post(http)).body()
            assert caught.value.status == 504
            await fake.left.wait()
            await http.close()

    run(scenario())


@each_loop
def test_a_long_prompt_after_the_head_is_not_idleness(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(then_silent(SSE)) as fake:
            http = client(fake.port, idle=SOON / 10, first_byte=SOON)
            with pytest.raises(BackendTimeout, match=r"sent no answer within 0.05 s"):
                await (await post(http)).body()
            await http.close()

    run(scenario())


@each_loop
def test_a_steady_trickle_passes_the_idle_limit_and_meets_the_total(run: Run) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(SSE)
            while True:
                await peer.send(chunk(b"."))
                await asyncio.sleep(0)

        async with faulty(script) as fake:
            http = client(fake.port, idle=4 * SOON, total=8 * SOON)
            with pytest.raises(BackendTimeout, match="did not finish"):
                await (await post(http)).body()
            await http.close()

    run(scenario())


@each_loop
def test_nobody_there(run: Run) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
            http = client(taken.getsockname()[1], connections=1)
            for _ in range(3):  # a failed connection frees its place
                with pytest.raises(BackendUnavailable) as caught:
                    await post(http)
                assert caught.value.message == "backend 'fake' cannot be reached: connection refused"
        http = Client(
            "fake", Address("secret." + "x" * 64, 80)
        )  # longer than a label may be: refused before any look-up
        with pytest.raises(BackendUnavailable, match="host name is not known") as caught:
            await post(http)
        assert "secret" not in caught.value.message
        assert caught.value.status == 502

    run(scenario())


@each_loop
def test_a_handshake_that_never_ends_is_a_timeout(run: Run) -> None:
    async def scenario() -> None:
        async def script(peer: Peer) -> None:
            await peer.gone()

        async with faulty(script) as fake:
            http = Client("fake", Address("127.0.0.1", fake.port, tls=True), Limits(connect=SOON))
            with pytest.raises(BackendTimeout, match=r"could not be reached within 0.05 s"):
                await post(http)
            await fake.left.wait()
            await http.close()

    run(scenario())
