"""Links to images, followed over real sockets: what is fetched, what never is, and what each failure is called.

The names are invented and lead to loopback, so the tests hand in who looks them up and which addresses are public.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import zlib
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.links import is_public
from canonical.errors import Busy, GatewayError, InvalidRequest, Unsupported
from canonical.messages import Image, Message, Text
from canonical.requests import Generate, Origin, Vocabulary
from gateway import fetch
from gateway.fetch import Fetcher, look_up
from gateway.settings import Images
from tests.calling import SOON, Run, each_loop, until
from tests.faulty import Faulty, Peer, Script, always, chunk, chunked_head, endless, faulty, reply, then_silent
from tests.tls import make_certificate

HOST = "images.example"


def png(width: int = 64, height: int = 64, color: tuple[int, int, int] = (255, 0, 0)) -> bytes:
    def part(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    rows = (b"\0" + bytes(color) * 64) * 64
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


RED = png()
PICTURE = reply(200, RED, kind="text/plain")  # what a server calls its bytes is not believed


class Names:
    """Looks names up in a table, and counts; ``then`` is what a second look-up would say."""

    def __init__(self, table: dict[str, Sequence[str]] | None = None, then: Sequence[str] = ("10.0.0.1",)) -> None:
        self.table = {HOST: ["127.0.0.1"]} if table is None else table
        self.asked: list[str] = []
        self.then = then

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        again = host in self.asked
        self.asked.append(host)
        if host not in self.table:
            raise socket.gaierror(-2, "Name or service not known")
        return self.then if again else self.table[host]


def fetcher(
    *hosts: str,
    names: Callable[[str, int], Coroutine[Any, Any, Sequence[str]]] | None = None,
    total: int = fetch.TOTAL,
    public: Callable[[str], bool] = lambda address: address == "127.0.0.1" or is_public(address),
    tls: ssl.SSLContext | None = None,
    size: int = 1 << 20,
    time: float = 10.0,
    connect: float = fetch.CONNECT,
) -> Fetcher:
    images = Images(hosts=hosts, size=size, time=time)
    names = names or Names(then=["127.0.0.1"])
    return Fetcher(images, total=total, resolve=names, public=public, tls=tls, connect=connect)


def asking(*links: str) -> Generate:
    parts = [Text("What is it?"), *(Image(link, "low") for link in links)]
    origin = Origin("openai", b"{}", Vocabulary({"image_link": ("messages.content.image_url",)}), verbatim=True)
    return Generate(model="m", messages=(Message("user", tuple(parts)), Message("assistant", ())), origin=origin)


def answering(**pages: bytes) -> Script:
    """A server of these pages."""

    async def script(peer: Peer) -> None:
        while True:
            asked = await peer.request()
            await peer.send(pages.get(asked.path.lstrip("/"), reply(404, b"none")))

    return script


def moved(to: str, status: int = 302) -> bytes:
    return reply(status, b"", headers=[f"Location: {to}"])


def refused(script: Script, path: str = "/x", **settings: Any) -> tuple[GatewayError, Faulty]:
    """What one link to a server of this script comes to."""

    async def scenario() -> tuple[GatewayError, Faulty]:
        async with faulty(script) as fake:
            with pytest.raises(GatewayError) as caught:
                await fetcher(f"{HOST}:{fake.port}", **settings).follow(asking(f"http://{HOST}:{fake.port}{path}"))
        return caught.value, fake

    return asyncio.run(scenario())


def words(script: Script, path: str = "/x", **settings: Any) -> str:
    """The client's own 400, and why."""
    error, _ = refused(script, path, **settings)
    assert (type(error), error.status, error.code) == (InvalidRequest, 400, "invalid_image_url")
    assert error.param == "messages.content.image_url"
    before, _, why = error.message.partition(" cannot be used: ")
    assert before.startswith(f"the image at http://{HOST}")
    assert "backend" not in why
    assert "127.0.0.1" not in why
    return why


@each_loop
def test_m4_a_link_becomes_the_image(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as fake:
            names = Names()
            link = f"http://{HOST}:{fake.port}/red.png?key=secret"
            request = asking(link, link)
            seen = await fetcher(f"{HOST}:{fake.port}", names=names).follow(request)
            first, second = [part for part in seen.messages[0].parts if isinstance(part, Image)]
            assert first == second
            assert (first.source.data, first.source.media_type, first.detail) == (RED, "image/png", "low")  # type: ignore[union-attr]
            assert seen.messages[0].parts[0] == Text("What is it?")
            assert seen.messages[1:] == request.messages[1:]
            assert not seen.origin.verbatim
            assert request.origin.verbatim
            (asked,) = fake.requests  # the same link once
            assert (asked.method, asked.path) == ("GET", "/red.png?key=secret")
            assert asked.headers == {
                "host": f"{HOST}:{fake.port}",
                "accept-encoding": "identity",
                "user-agent": "dragoman",
                "accept": "image/png, image/jpeg, image/webp, image/gif",
            }
            assert names.asked == [HOST]

    run(scenario())


def test_a_request_without_links_is_the_same_one() -> None:
    request = Generate(model="m", messages=(Message("user", (Text("hi"),)),))
    assert asyncio.run(fetcher().follow(request)) is request


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("http://other.example/x", "'other.example' is not listed"),
        (f"http://{HOST}:81/x", "is not listed"),
        (f"http://{HOST}@127.0.0.1/x", "no plain"),
        ("http://[::1]/x", "no plain"),
        ("http://localhost/x", "not listed"),
        ("http://169.254.169.254/latest/meta-data", "not listed"),
    ],
)
def test_what_is_not_listed_is_refused_before_anything_is_asked(link: str, why: str) -> None:
    async def nobody(host: str, port: int) -> Sequence[str]:
        raise AssertionError("a name was looked up")

    error: GatewayError
    with pytest.raises(Unsupported, match=why) as caught:
        asyncio.run(fetcher(HOST, names=nobody).follow(asking(f"http://{HOST}/fine", link)))
    error = caught.value
    assert (error.status, error.param) == (400, "messages.content.image_url")
    if "listed" in why:
        assert "images.hosts" in error.message
        assert "data: URL" in error.message


INNER = [
    [],
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["::1"],
    ["::ffff:8.8.8.8"],
    ["64:ff9b::808:808"],
    ["fe80::1%eth0"],
    ["8.8.8.8", "10.0.0.1"],
    ["2001:4860:4860::8888", "::1"],
]


@pytest.mark.parametrize("addresses", [None, *INNER], ids=str)
def test_private_and_unknown_names_get_the_same_words(addresses: Sequence[str] | None) -> None:
    async def scenario() -> str:
        names = Names({} if addresses is None else {HOST: addresses})
        with pytest.raises(InvalidRequest) as caught:
            await fetcher(HOST, names=names, public=is_public).follow(asking(f"http://{HOST}/x?key=secret"))
        return caught.value.message

    said = asyncio.run(scenario())
    assert said == f"the image at http://{HOST}/x cannot be used: its host has no public address"


def test_a_name_is_looked_up_once_so_a_second_answer_changes_nothing() -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as fake:
            names = Names(then=["10.0.0.1"])
            await fetcher(f"{HOST}:{fake.port}", names=names).follow(asking(f"http://{HOST}:{fake.port}/x"))
            assert names.asked == [HOST]
            # A redirect to the same name is a new link, and here it has moved to a private address.
        async with faulty(answering(x=moved("/y"), y=PICTURE)) as fake:
            names = Names(then=["10.0.0.1"])
            with pytest.raises(InvalidRequest, match="no public address"):
                await fetcher(f"{HOST}:{fake.port}", names=names).follow(asking(f"http://{HOST}:{fake.port}/x"))
            assert [asked.path for asked in fake.requests] == ["/x"]

    asyncio.run(scenario())


def test_the_system_looks_names_up() -> None:
    assert "127.0.0.1" in asyncio.run(look_up("localhost", 80))
    for spelling in ("127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1"):
        assert not any(map(is_public, asyncio.run(look_up(spelling, 80))))


def test_the_next_address_is_tried_where_one_refuses() -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as fake:
            names = Names({HOST: ["127.0.0.2", "127.0.0.1"]})
            follower = fetcher(f"{HOST}:{fake.port}", names=names, public=lambda _: True)
            await follower.follow(asking(f"http://{HOST}:{fake.port}/x"))
            assert len(fake.requests) == 1

    asyncio.run(scenario())


def test_the_next_address_is_tried_where_one_is_silent() -> None:
    async def scenario() -> None:
        deaf = socket.create_server(("127.0.0.2", 0), backlog=0)
        port = deaf.getsockname()[1]
        full = [socket.socket() for _ in range(3)]
        for waiting in full:  # its queue is full, and nobody takes from it
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        served = await asyncio.start_server(_red, "127.0.0.1", port)
        names = Names({HOST: ["127.0.0.2", "127.0.0.1"]})
        follower = fetcher(f"{HOST}:{port}", names=names, public=lambda _: True, connect=SOON)
        await follower.follow(asking(f"http://{HOST}:{port}/x"))
        served.close()
        for waiting in (*full, deaf):
            waiting.close()

    asyncio.run(scenario())


async def _red(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(PICTURE)
    writer.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_listed_hosts(status: int) -> None:
    async def scenario() -> None:
        async with faulty(always(PICTURE)) as last:
            there = f"http://cdn.images.example:{last.port}/red"
            pages = {"a": moved("/b", status), "b": moved("c", status), "c": moved(there, status)}
            async with faulty(answering(**pages)) as fake:
                names = Names({HOST: ["127.0.0.1"], "cdn.images.example": ["127.0.0.1"]}, then=["127.0.0.1"])
                follower = fetcher(f"{HOST}:{fake.port}", f"*.{HOST}:{last.port}", names=names)
                await follower.follow(asking(f"http://{HOST}:{fake.port}/a"))
            assert [asked.path for asked in last.requests] == ["/red"]
            assert "cookie" not in last.requests[0].headers
            assert "referer" not in last.requests[0].headers

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("http://127.0.0.1/x", "a host that the operator does not list"),
        ("http://localhost:11434/api/tags", "a host that the operator does not list"),
        ("//[::1]/x", "no plain"),
        (f"http://{HOST}@10.0.0.1/x", "no plain"),
        ("file:///etc/passwd", "no plain"),
        ("", "more than 3 times"),
        ("/x", "more than 3 times"),
    ],
)
def test_redirects_elsewhere_are_not(to: str, why: str) -> None:
    assert why in words(answering(x=moved(to)))


def test_a_redirect_to_a_listed_name_with_a_private_address_is_not_followed() -> None:
    async def scenario() -> None:
        async with faulty(answering(x=moved("http://inner.example/"))) as fake:
            names = Names({HOST: ["127.0.0.1"], "inner.example": ["10.0.0.1"]})
            with pytest.raises(InvalidRequest, match="no public address"):
                await fetcher(f"{HOST}:{fake.port}", "inner.example", names=names).follow(
                    asking(f"http://{HOST}:{fake.port}/x")
                )

    asyncio.run(scenario())


LARGE = b"\x89PNG\r\n\x1a\n" + bytes(1 << 20)
SLOW = SOON


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (always(reply(404, b"the server's own words")), "its server answered with status 404"),
        (always(reply(500, b"")), "its server answered with status 500"),
        (always(reply(206, RED)), "its server answered with status 206"),
        (always(reply(200, b"<html>an inner page</html>", kind="image/png")), "unknown image format"),
        (always(reply(200, b"")), "unknown image format"),
        (always(reply(200, b"\x89P")), "unknown image format"),
        (always(reply(200, png(10_000, 5_001))), "at most 50000000 pixels, not 10000 x 5001"),
        (always(reply(200, gzip.compress(bytes(1 << 22)), headers=["Content-Encoding: gzip"])), "no proper answer"),
        (always(reply(200, LARGE)), "it has more than 1048576 bytes"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"), "no proper answer"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"), "it has more than 1048576 bytes"),
        (endless(chunked_head("image/png") + chunk(RED), chunk(bytes(65536))), "it has more than 1048576 bytes"),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n" + RED, bytes(65536)), "it has more than 1048576 bytes"),
        (endless(chunked_head("text/html"), chunk(b"<html>" * 100)), "unknown image format"),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "no proper answer"),
        (always(b"220 mail.example ESMTP\r\n"), "no proper answer"),
        (always(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"), "no proper answer"),
        (then_silent(chunked_head("image/png") + chunk(RED) + b"5\r\n"), "its server took too long"),
        (then_silent(b"HTTP/1.1 200 OK\r\n"), "its server took too long"),
        (then_silent(), "its server took too long"),
    ],
)
def test_what_a_server_does_wrong_is_the_clients_400(script: Script, why: str) -> None:
    patient = "too long" not in why
    assert why in words(script, time=10.0 if patient else SLOW)


def test_a_server_that_drips_is_left() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked_head("image/png"), chunk(RED))
        try:
            while True:
                await peer.send(chunk(b"x"))
                await asyncio.sleep(0)
        finally:
            peer.faulty.left.set()

    assert words(script, time=SLOW, size=20 << 20) in {"its server took too long", "its server sent no proper answer"}


def test_a_body_that_is_cut_off_is_no_image() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(PICTURE[:-5])

    assert words(script) == "its server sent no proper answer"


def test_nobody_there() -> None:
    async def scenario() -> None:
        async with faulty(always()) as fake:
            port = fake.port
        with pytest.raises(InvalidRequest, match=r"its server cannot be reached$"):
            await fetcher(f"{HOST}:{port}").follow(asking(f"http://{HOST}:{port}/x"))

    asyncio.run(scenario())


def test_the_images_of_a_request_have_a_limit_together() -> None:
    assert f"may have {len(RED) - 1} bytes together" in words(always(PICTURE), total=len(RED) - 1)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), f"DNS:{HOST}")


@each_loop
def test_tls_is_checked_against_the_name_and_not_the_address(run: Run, certificate: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    asked: list[str | None] = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))

    async def scenario() -> None:
        async with faulty(answering(x=PICTURE, down=moved("http://images.example/x")), tls=serving) as fake:
            names = Names({HOST: ["127.0.0.1"], "other.example": ["127.0.0.1"]}, then=["127.0.0.1"])
            hosts = [f"{HOST}:{fake.port}", f"other.example:{fake.port}", HOST]
            follower = fetcher(*hosts, names=names, tls=trusting)
            await follower.follow(asking(f"https://{HOST}:{fake.port}/x"))
            assert asked == [HOST]
            untrusted = "cannot be reached, or has no certificate to be trusted"
            with pytest.raises(InvalidRequest, match=untrusted):
                await follower.follow(asking(f"https://other.example:{fake.port}/x"))
            with pytest.raises(InvalidRequest, match=untrusted):
                await fetcher(*hosts, names=names).follow(asking(f"https://{HOST}:{fake.port}/x"))
            with pytest.raises(InvalidRequest, match="from https to http"):
                await follower.follow(asking(f"https://{HOST}:{fake.port}/down"))

    run(scenario())


@each_loop
def test_m4_a_client_that_leaves_ends_its_fetches(run: Run) -> None:
    async def scenario() -> None:
        async with faulty(then_silent(chunked_head("image/png") + chunk(RED))) as fake:
            follower = fetcher(f"{HOST}:{fake.port}")
            task = asyncio.ensure_future(follower.follow(asking(f"http://{HOST}:{fake.port}/x")))
            await until(lambda: bool(fake.requests))
            task.cancel()
            await fake.left.wait()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario())


def test_one_bad_link_ends_the_others_of_its_request() -> None:
    async def script(peer: Peer) -> None:
        if (await peer.request()).path == "/bad":
            await peer.send(reply(404))
        else:
            await peer.gone()

    async def scenario() -> None:
        async with faulty(script) as fake:
            links = [f"http://{HOST}:{fake.port}/{page}" for page in ("slow", "bad")]
            with pytest.raises(InvalidRequest, match="/bad cannot be used: its server answered with status 404"):
                await fetcher(f"{HOST}:{fake.port}").follow(asking(*links))
            await fake.left.wait()

    asyncio.run(scenario())


def test_a_slow_host_holds_up_nobody_elses_links() -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async def scenario() -> None:
        async with faulty(slow) as hanging, faulty(always(PICTURE)) as quick:
            names = Names({HOST: ["127.0.0.1"], "slow.example": ["127.0.0.1"]}, then=["127.0.0.1"])
            follower = fetcher(f"{HOST}:{quick.port}", f"slow.example:{hanging.port}", names=names)
            many = [f"http://slow.example:{hanging.port}/{number}" for number in range(8)]
            greedy = [asyncio.ensure_future(follower.follow(asking(*many))) for _ in range(10)]
            await until(lambda: len(hanging.requests) == fetch.PER_HOST)
            await follower.follow(asking(f"http://{HOST}:{quick.port}/x"))
            assert hanging.connections == fetch.PER_HOST
            for task in greedy:
                task.cancel()
            await asyncio.gather(*greedy, return_exceptions=True)

    asyncio.run(scenario())


def test_who_waits_for_a_turn_too_long_is_told_to_come_again() -> None:
    async def scenario() -> None:
        follower = fetcher(HOST, time=SOON)
        (turns,) = follower._turns.values()
        for _ in range(fetch.PER_HOST):
            await turns.acquire()
        with pytest.raises(Busy, match="too many links"):
            await follower.follow(asking(f"http://{HOST}/x"))

    asyncio.run(scenario())


def test_a_request_fetches_few_at_a_time() -> None:
    async def scenario() -> None:
        arrived = asyncio.Event()
        held = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if len(peer.faulty.requests) == fetch.AT_ONCE:
                arrived.set()
            await held.wait()
            await peer.send(PICTURE)

        async with faulty(script) as fake:
            links = [f"http://{HOST}:{fake.port}/{number}" for number in range(2 * fetch.AT_ONCE + 1)]
            task = asyncio.ensure_future(fetcher(f"{HOST}:{fake.port}").follow(asking(*links)))
            await arrived.wait()
            for _ in range(20):
                await asyncio.sleep(0)
            assert fake.connections == fetch.AT_ONCE
            held.set()
            seen = await task
            assert all(not isinstance(part.source, str) for part in seen.messages[0].parts if isinstance(part, Image))
            assert len(fake.requests) == len(links)

    asyncio.run(scenario())
