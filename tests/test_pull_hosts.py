"""Which hosts a pull may reach, and what a disk that is full does to one."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import ssl
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.fetching import partial as partials
from backends.fetching.fetching import Fetching
from backends.fetching.hosts import Hosts, PullSettings, Source
from backends.fetching.ledger import Ledger
from backends.links import Link, read_link
from backends.ollama import OllamaBackend, OllamaSettings
from backends.store import Store, locks
from canonical.digests import digest_of
from canonical.errors import BackendError, BackendUnavailable, InvalidRequest, StorageFailed
from canonical.progress import Progress
from tests.pulls import KIB, Puller, overlap, weights
from tests.registry import Fault, Site, registry
from tests.stores import named as parsed
from tests.tls import make_certificate

WEIGHTS = weights()
DIGEST = digest_of(WEIGHTS)
ADDRESSES = {
    "registry.ollama.ai": ["104.21.75.227"],
    "lan.example": ["192.168.1.7"],
    "rebound.example": ["104.21.75.227", "127.0.0.1"],
    "cdn.example": ["93.184.216.34"],
}


def hosts(*listed: str | Source) -> Hosts:
    async def resolve(host: str, _port: int) -> Sequence[str]:
        if host not in ADDRESSES:
            raise OSError
        return ADDRESSES[host]

    return Hosts(listed, resolve=resolve)


def reached(known: Hosts, link: str) -> Sequence[str]:
    return asyncio.run(known.addresses(read_link(link)))


def test_a_listed_host_may_stand_anywhere_and_others_only_in_public() -> None:
    known = hosts("registry.ollama.ai", "lan.example")
    assert reached(known, "https://lan.example/") == ["192.168.1.7"]
    assert reached(known, "https://cdn.example/") == ["93.184.216.34"]  # by a redirect
    for host in ("https://lan.example:444/", "https://rebound.example/", "https://nowhere.example/"):
        with pytest.raises(BackendError, match="no public address, and is not listed"):
            reached(known, host)
    with pytest.raises(BackendUnavailable, match="not known"):
        reached(hosts("nowhere.example"), "https://nowhere.example/")


def test_a_client_may_name_listed_hosts_alone() -> None:
    known = hosts("registry.ollama.ai", "*.example", "other.org:5000")
    for link in ("https://registry.ollama.ai/", "https://cdn.example/", "https://other.org:5000/"):
        known.check(read_link(link))
    for link in ("https://example/", "https://registry.ollama.ai:444/", "https://other.org/", "https://1.2.3.4/"):
        with pytest.raises(InvalidRequest, match="not listed"):
            known.check(read_link(link))


def test_another_server_is_sent_to_listed_hosts_alone() -> None:
    """It stands in a net of its own, and asks whomever it is told to."""
    other = OllamaBackend("other", OllamaSettings(url="http://127.0.0.1:9", pull_hosts=("lan.example",)))

    async def first(steps: AsyncGenerator[Progress, None]) -> None:
        async for _ in steps:
            pass

    for call in (other.pull, other.push):
        for name in (
            "10.0.0.1/a/b",
            "http://10.0.0.1:8080/a/b",
            "lan.example:81/a/b",
            "tiny",
            "a/b@sha256:00",
            "user@lan.example/a/b",
        ):
            with pytest.raises(InvalidRequest):
                asyncio.run(first(call(name, insecure=True)))
        for name in ("lan.example/a/b", "http://lan.example/a/b"):
            with pytest.raises(BackendUnavailable):
                asyncio.run(first(call(name, insecure=True)))
    OllamaSettings(url="http://127.0.0.1:9", pull_hosts=("*",))
    with pytest.raises(ValueError, match="is no host"):
        OllamaSettings(url="http://127.0.0.1:9", pull_hosts=("http://x",))


def test_credentials_go_over_no_network_without_tls(tmp_path: Path) -> None:
    """Whether a pull goes without it is for its client to say."""
    listed = (
        Source(host="lan.example", token="secret"),
        Source(host="127.0.0.1:9", user="me", password="secret"),
        "cdn.example",
    )
    fetching = Fetching(Store(tmp_path), PullSettings(hosts=listed))
    for name in ("lan.example/a/b", "http://lan.example/a/b"):
        with pytest.raises(InvalidRequest, match="without TLS"):
            fetching._origin(name, parsed(name), insecure=True)
    assert fetching._origin("https://lan.example/a/b", parsed("lan.example/a/b"), insecure=True).tls
    for name in ("127.0.0.1:9/a/b", "cdn.example/a/b"):
        assert not fetching._origin(name, parsed(name), insecure=True).tls


def test_a_star_lists_every_public_host_and_no_other() -> None:
    known = hosts("*")
    known.check(read_link("https://cdn.example/"))
    known.check(read_link("https://lan.example/"))
    assert reached(known, "https://cdn.example/")
    with pytest.raises(BackendError, match="no public address"):
        reached(known, "https://lan.example/")


def test_the_environment_may_add_one() -> None:
    more = hosts("registry.ollama.ai").plus(Link(tls=False, host="lan.example", port=8080, target="/"))
    assert reached(more, "http://lan.example:8080/") == ["192.168.1.7"]
    with pytest.raises(BackendError):
        reached(hosts("registry.ollama.ai"), "http://lan.example:8080/")


@pytest.mark.parametrize(
    "settings",
    [
        {"hosts": ["https://registry.ollama.ai"]},
        {"hosts": ["a b"]},
        {"hosts": [{"host": "*", "token": "x"}]},
        {"hosts": [{"host": "x.org", "token": "a\nb"}]},
        {"hosts": [{"host": "x.org", "tokn": "a"}]},
        {"connections": 0},
        {"connections": 100},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(settings, PullSettings)


def test_settings_show_no_secret() -> None:
    settings = msgspec.convert(
        {"hosts": ["hf.co", {"host": "x.org", "user": "me", "password": "geheim"}]}, PullSettings
    )
    assert "geheim" not in repr(settings)


# The disk.


@pytest.fixture
def site() -> Iterator[Site]:
    with registry() as one:
        one.publish("acme/tiny", model=WEIGHTS, template=b"{{ .Prompt }}")
        yield one


@pytest.fixture
def puller(site: Site, tmp_path: Path) -> Puller:
    return Puller(tmp_path / "store", site)


def test_a_disk_that_fills_up_stops_the_pull_and_room_lets_it_go_on(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, write = 200 * KIB, os.pwrite

    def filling(file: int, data: bytes, at: int) -> int:
        nonlocal room
        if room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path")
        room -= len(data)
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", filling)
    with pytest.raises(StorageFailed, match="the disk is full") as caught:
        puller.pull()
    assert "/" not in caught.value.message
    assert puller.listed() == set()
    first = puller.site.served(DIGEST)
    room = 1 << 40
    puller.site.log.clear()
    puller.pull()
    assert puller.store.blob(DIGEST).read_bytes() == WEIGHTS
    again = puller.site.served(DIGEST)
    assert overlap(first, again) < len(WEIGHTS) // 2
    assert sum(b - a for a, b in again) < len(WEIGHTS)


def test_what_could_not_be_written_is_not_noted(puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    """One write fails, in the middle of a block, and those behind it succeed."""
    write, count = os.pwrite, itertools.count()

    def failing(file: int, data: bytes, at: int) -> int:
        if next(count) == 18:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(StorageFailed):
        puller.pull()
    partial = puller.store.partial(DIGEST)
    ledger, content = Ledger(partial), partial.read_bytes()
    ledger.open(len(content))
    assert all(content[a:b] == WEIGHTS[a:b] for a, b in ledger.spans)
    ledger.close()
    puller.pull()
    assert puller.store.blob(DIGEST).read_bytes() == WEIGHTS


def test_a_turn_is_taken_on_the_file_that_stands_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had the lock may have given the file its name between our opening and locking it."""
    partial, lock = tmp_path / "partial", locks.take

    def late(file: int) -> bool:
        monkeypatch.setattr(locks, "take", lock)
        partial.replace(tmp_path / "whole")
        return lock(file)

    monkeypatch.setattr(locks, "take", late)
    file = locks.held(partial)
    assert file is not None
    assert os.path.samestat(os.fstat(file), partial.stat())
    assert locks.held(partial) is None
    os.close(file)


def test_a_disk_that_gets_nearly_full_is_not_filled_to_the_brim(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10**9, *[10**9] * 3, *[0] * 100])
    monkeypatch.setattr(partials, "free_bytes", lambda _: next(free))
    with pytest.raises(StorageFailed, match="nearly full"):
        puller.pull(reserve=1000)
    monkeypatch.undo()
    puller.pull()
    assert puller.store.blob(DIGEST).read_bytes() == WEIGHTS


def test_what_does_not_fit_is_not_begun(puller: Puller) -> None:
    with pytest.raises(StorageFailed, match=r"not enough room: .* bytes are to be fetched, and 0 are free"):
        puller.pull(reserve=1 << 60)
    assert puller.site.served(DIGEST) == []


def test_a_folder_that_cannot_be_written_is_an_error_without_its_path(tmp_path: Path, site: Site) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageFailed) as caught:
        Puller(tmp_path / "file" / "store", site).pull()
    assert str(tmp_path) not in caught.value.message


def test_a_pull_that_is_closed_lets_go_of_everything(puller: Puller) -> None:
    puller.site.faults.append(Fault("stall", 10 * KIB))

    async def half() -> None:
        steps = puller.fetching().pull(puller.named("acme/tiny"), insecure=True)
        async for step in steps:
            if step.completed:
                break
        await steps.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        file = locks.held(puller.store.partial(DIGEST))
        assert file is not None
        os.close(file)

    asyncio.run(half())


def test_a_pull_that_leaves_while_it_takes_its_turn_keeps_no_lock(
    puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, taken, take = threading.Event(), threading.Event(), locks.held

    def slow(partial: Path) -> int | None:
        file = take(partial)
        taken.set()
        go.wait(10)
        return file

    monkeypatch.setattr(locks, "held", slow)

    async def leave() -> None:
        steps = puller.fetching().pull(puller.named("acme/tiny"), insecure=True)

        async def read() -> None:
            async for _ in steps:
                pass

        reading = asyncio.ensure_future(read())
        await asyncio.to_thread(taken.wait, 10)
        reading.cancel()
        asyncio.get_running_loop().call_later(0.02, go.set)
        await asyncio.wait((reading,))
        assert reading.cancelled()

    asyncio.run(leave())
    file = take(puller.store.partial(DIGEST))
    assert file is not None
    os.close(file)


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture
def secure(certificate: Path) -> Iterator[Site]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with registry(tls) as one:
        one.publish("acme/tiny", model=WEIGHTS)
        yield one


def test_https_is_the_rule(secure: Site, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    puller = Puller(tmp_path / "store", secure)
    with pytest.raises(BackendError, match="certificate is not trusted"):
        puller.pull(insecure=False)
    assert puller.pauses == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    secure.token = "t0ken"
    puller.pull(insecure=False)
    assert puller.store.blob(DIGEST).read_bytes() == WEIGHTS


def test_https_never_leads_to_http(
    site: Site, secure: Site, tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    secure.faults.append(Fault("redirect", text=f"http://{site.cdn}/data/{DIGEST}?signed=yes", where="blob"))
    puller = Puller(tmp_path / "store", secure, extra=(site.cdn,))
    with pytest.raises(BackendError, match="leads from https to http"):
        puller.pull(insecure=False)
    assert site.log == []


def test_tls_that_fails_is_final_and_says_what_would_help(puller: Puller) -> None:
    with pytest.raises(BackendError, match="TLS failed: a source without TLS needs insecure") as caught:
        puller.pull(insecure=False)
    assert caught.value.status == 502
    assert puller.pauses == []
