"""Pulls from a registry of Ollama's protocol: what arrives, what is told, and what nothing in the way may change."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from backends.fetching.fetching import Fetching
from backends.fetching.ledger import Ledger
from canonical.digests import digest_of
from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest, ModelNotFound, StorageFailed, Unsupported
from canonical.progress import Progress
from tests.pulls import KIB, Puller, overlap, weights
from tests.registry import Fault, Site, registry
from tests.registry.faults import Where

WEIGHTS = weights()
DIGEST = digest_of(WEIGHTS)


@pytest.fixture
def site() -> Iterator[Site]:
    with registry() as one:
        one.publish("acme/tiny", model=WEIGHTS, template=b"{{ .Prompt }}", license=b"free")
        yield one


@pytest.fixture
def puller(site: Site, tmp_path: Path) -> Puller:
    return Puller(tmp_path / "store", site)


def whole(puller: Puller) -> bool:
    return puller.store.blob(DIGEST).read_bytes() == WEIGHTS


def test_a_pull_tells_ollamas_lines_and_makes_a_model(puller: Puller) -> None:
    steps = puller.pull()
    statuses = list(dict.fromkeys(step.status for step in steps))
    layers = [digest_of(content)[7:19] for content in (WEIGHTS, b"{{ .Prompt }}", b"free")]
    config = json.loads(puller.site.manifests["acme/tiny:latest"])["config"]["digest"][7:19]
    assert statuses == [
        "pulling manifest",
        *(f"pulling {digest}" for digest in [*layers, config]),
        "verifying sha256 digest",
        "writing manifest",
    ]
    blob = [step for step in steps if step.digest == DIGEST]
    assert blob[0] == Progress(status=f"pulling {DIGEST[7:19]}", digest=DIGEST, total=len(WEIGHTS))
    assert blob[-1].completed == blob[-1].total == len(WEIGHTS)
    assert [step.completed for step in blob] == sorted(step.completed for step in blob)
    assert puller.listed() == {f"{puller.site.host}/acme/tiny:latest"}
    assert whole(puller)
    assert len(puller.files()) == 4  # and nothing beside the blobs


def test_ranges_come_over_several_connections_and_each_byte_once(puller: Puller) -> None:
    puller.pull()
    served = puller.site.served(DIGEST)
    assert len(served) == 5
    assert sorted(served) == [(at, min(at + 128 * KIB, len(WEIGHTS))) for at in range(0, len(WEIGHTS), 128 * KIB)]


def test_what_is_there_is_not_fetched_again(puller: Puller) -> None:
    puller.pull()
    puller.site.log.clear()
    steps = puller.pull()
    assert [(one.method, one.path) for one in puller.site.log] == [("GET", "/v2/acme/tiny/manifests/latest")]
    assert [step.completed for step in steps if step.digest == DIGEST] == [len(WEIGHTS)]


def test_an_update_fetches_what_is_new_and_drops_what_is_old(puller: Puller) -> None:
    puller.pull()
    puller.site.publish("acme/tiny", model=WEIGHTS, template=b"new", license=b"free")
    steps = puller.pull()
    assert steps[-1].status == "removing unused layers"
    assert not puller.store.has(digest_of(b"{{ .Prompt }}"))
    assert puller.store.has(digest_of(b"new"))
    assert puller.site.served(DIGEST)[5:] == []


def test_an_unknown_model_is_said_in_ollamas_words(puller: Puller) -> None:
    with pytest.raises(ModelNotFound, match="pull model manifest: file does not exist"):
        puller.pull("acme/other")


def test_an_empty_layer_is_one(puller: Puller) -> None:
    puller.site.publish("acme/tiny", model=WEIGHTS, system=b"")
    puller.pull()
    assert puller.store.size(digest_of(b"")) == 0


# What breaks and is tried again.


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", 50_000, times=4),
        Fault("drop", 0, times=2),
        Fault("stall", 50_000, times=2),
        Fault("status", 500, times=2),
        Fault("status", 503, text="1", times=2),
        Fault("status", 429, text="7", times=1),
        Fault("status", 403, times=1),  # a signature that has run out
        Fault("status", 500, where="blob", times=2),
        Fault("status", 502, where="manifest", times=2),
        Fault("no ranges"),
        Fault("drip", 3000),
        Fault("short", 10, times=2),
        Fault("odd range", times=2),
        Fault("few", 100_000),
        Fault("no ranges", after=1, times=2),
        Fault("gzip", times=2),
        Fault("etag", text='W/"weak"', times=2),
        Fault("stall", where="manifest", times=1),
        Fault("header", 100_000, where="manifest", times=1),
    ],
    ids=lambda fault: f"{fault.where}-{fault.kind}-{fault.value}",
)
def test_a_passing_fault_costs_a_pause_and_no_byte_twice(puller: Puller, fault: Fault) -> None:
    puller.site.faults.append(fault)
    puller.pull()
    assert whole(puller)
    assert len(puller.files()) == 4
    if fault.text == "7":
        assert max(puller.pauses) >= 7
    if fault.kind == "drop" and fault.where == "data":
        # The server counts what it put out; the client may not have got the last of it.
        served = sum(end - start for start, end in puller.site.served(DIGEST))
        assert served <= len(WEIGHTS) + fault.value


def test_a_stream_without_ranges_that_breaks_still_ends(puller: Puller) -> None:
    """It begins anew each time, but what came is kept: each try gets further."""
    puller.site.faults += [Fault("no ranges"), Fault("drop", 200 * KIB, times=1), Fault("drop", 400 * KIB, times=1)]
    puller.pull()
    assert whole(puller)


def test_a_line_that_keeps_breaking_gets_there_as_long_as_it_brings_something(puller: Puller) -> None:
    puller.connections = 1
    puller.site.faults.append(Fault("drop", 100 * KIB))
    puller.pull(part=1 << 30)
    assert whole(puller)


def test_ranges_after_a_stream_without(puller: Puller) -> None:
    puller.site.faults += [Fault("no ranges", times=1), Fault("drop", 200 * KIB, times=1)]
    puller.pull()
    assert whole(puller)
    assert overlap(puller.site.served(DIGEST)[:1], [(0, 100 * KIB)]) == 100 * KIB
    assert min(start for start, _ in puller.site.served(DIGEST)[1:]) > 100 * KIB


# What is final.


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", 500), "status 500"),
        (Fault("status", 404, where="blob"), "status 404"),
        (Fault("status", 403, where="blob"), "status 403"),
        (Fault("drop", 0), "closed the connection"),
        (Fault("stall", 0), "stopped sending|sent no answer"),
        (Fault("short", 10, where="manifest"), ""),
        (Fault("flip", 300_000), "digest mismatch, file must be downloaded again"),
        (Fault("size", 700_000), "has 700000 bytes for it, not 614400"),
        (Fault("size", 10), "has 10 bytes for it, not 614400"),
        (Fault("gzip"), "compressed"),
        (Fault("no ranges", after=1), "knows ranges only now and then"),
        (Fault("few", 100), "less than was asked for"),
        (Fault("odd range"), "other bytes than were asked for"),
        (Fault("endless", where="manifest"), "answered with more than"),
        (Fault("header", 100_000, where="manifest"), "its head exceeds"),
        (Fault("body", text="{", where="manifest"), "cannot be read"),
        (Fault("body", text="[" * 100_000, where="manifest"), "cannot be read"),
        (Fault("body", text='{"schemaVersion":2}', where="manifest"), "no weights in GGUF form"),
        (Fault("gzip", where="manifest"), "compressed"),
        (Fault("redirect", text="/v2/acme/tiny/manifests/latest", where="manifest"), "redirects more than"),
        (Fault("redirect", text="http://169.254.169.254/latest", where="manifest"), "no public address"),
        (Fault("redirect", text="http://127.0.0.1:1/", where="blob"), "no public address"),
        (Fault("redirect", text="http://localhost:1/", where="blob"), "no public address"),
        (Fault("redirect", text="http://[::1]:1/", where="blob"), "cannot be followed"),
        (Fault("redirect", text="file:///etc/passwd", where="blob"), "cannot be followed"),
    ],
    ids=lambda value: f"{value.where}-{value.kind}-{value.value}" if isinstance(value, Fault) else "",
)
def test_a_lasting_fault_is_an_error_that_says_it(puller: Puller, fault: Fault, said: str) -> None:
    if fault.kind == "short":
        puller.site.put("acme/tiny", {"schemaVersion": 2, "layers": []})
        said = "no weights"
    puller.site.faults.append(fault)
    with pytest.raises(GatewayError, match=said) as caught:
        puller.pull()
    assert not isinstance(caught.value, StorageFailed)
    assert str(puller.folder) not in caught.value.message
    assert puller.listed() == set()
    assert len(puller.site.log) < 60


@pytest.mark.parametrize("where", ["manifest", "blob"])
def test_a_redirect_that_leads_nowhere_is_not_followed_twice(puller: Puller, where: Where) -> None:
    puller.site.faults.append(Fault("redirect", text="file:///etc/passwd", where=where))
    with pytest.raises(BackendError, match="cannot be followed"):
        puller.pull()
    assert len({asked.path for asked in puller.site.log}) == len(puller.site.log)


def test_a_wrong_digest_leaves_no_file(puller: Puller) -> None:
    puller.site.faults.append(Fault("flip", 300_000, times=5))
    with pytest.raises(BackendError, match="digest mismatch"):
        puller.pull()
    assert puller.files() == []
    assert puller.listed() == set()
    puller.pull()
    assert whole(puller)


def test_bytes_that_change_while_they_are_fetched_never_get_a_name(puller: Puller) -> None:
    """Good bytes for the digest first, other ones over them later, would be the way to cheat it."""
    puller.site.faults += [Fault("drop", 100 * KIB, times=1), Fault("no ranges"), Fault("flip", 10)]
    with pytest.raises(BackendError, match="digest mismatch"):
        puller.pull()
    puller.site.faults.clear()
    puller.pull()
    assert whole(puller)


def test_a_file_that_changes_is_begun_anew(puller: Puller) -> None:
    puller.site.faults += [Fault("etag", text='"old"', times=2), Fault("drop", 100 * KIB, times=1)]
    puller.pull()
    assert whole(puller)
    starts = [start for start, _ in puller.site.served(DIGEST)]
    assert starts.count(0) == 2


def test_a_file_that_changes_each_time_is_given_up(puller: Puller) -> None:
    for number in range(200):
        puller.site.faults.append(Fault("etag", text=f'"{number}"', times=1))
    with pytest.raises(BackendError, match="another file for it each time"):
        puller.pull()


def test_a_pause_that_is_too_long_is_the_callers(puller: Puller) -> None:
    puller.site.faults.append(Fault("status", 429, text="600", where="manifest"))
    with pytest.raises(Busy) as caught:
        puller.pull()
    assert caught.value.retry_after == 600


# Manifests.


def layer(kind: str = "application/vnd.ollama.image.model", **changes: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": DIGEST, "size": len(WEIGHTS), **changes}


CONFIG = {"mediaType": "application/x", "digest": digest_of(b"{}"), "size": 2}


@pytest.mark.parametrize(
    ("layers", "error", "said"),
    [
        ([layer("application/vnd.ollama.image.tensor")], Unsupported, "kind 'vnd.ollama.image.tensor'"),
        ([layer(), layer("application/vnd.docker.image.rootfs.diff.tar.gzip")], Unsupported, "diff.tar.gzip"),
        ([layer(digest="sha256:../../etc/passwd")], BackendError, "cannot be"),
        ([layer(digest="../x")], BackendError, "cannot be"),
        ([layer(digest="sha512:" + "0" * 128)], BackendError, "cannot be"),
        ([layer(size=-1)], BackendError, "cannot be"),
        ([layer(size="many")], BackendError, "cannot be read"),
        ([layer(size=0)], BackendError, "its digest that it is not"),
        ([layer(size=2**60)], StorageFailed, "not enough room"),
        ([layer(), layer("application/vnd.ollama.image.system", size=2**33)], BackendError, "a text of"),
        ([layer()] * 300, BackendError, "more than 256 layers"),
        ([layer(size=100)], BackendError, "has 614400 bytes for it, not 100"),
        ([layer(size=len(WEIGHTS) + 5)], BackendError, "bytes for it"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    puller: Puller, layers: list[dict[str, object]], error: type[GatewayError], said: str
) -> None:
    puller.site.put("acme/tiny", {"schemaVersion": 2, "config": CONFIG, "layers": layers})
    with pytest.raises(error, match=said):
        puller.pull()
    assert puller.listed() == set()
    assert not any(len(name) == 71 for name in puller.files())


def test_weights_in_another_form_are_not_kept(puller: Puller) -> None:
    puller.site.publish("acme/tiny", model=b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(Unsupported, match="not in GGUF form"):
        puller.pull()
    assert not puller.store.has(digest_of(b"PK\x03\x04 a pickle in a zip"))
    assert puller.listed() == set()


# Names and hosts.


@pytest.mark.parametrize(
    "name", ["", "x/", "a/b/c/d", "x@sha256:00", "../x", "ftp://{}/acme/tiny", "x y", "x\ny", "{}/a/.."]
)
def test_what_is_no_name_is_refused(puller: Puller, name: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid model name"):
        asyncio.run(anext(puller.fetching().pull(name.format(puller.site.host), insecure=True)))
    assert puller.site.log == []


@pytest.mark.parametrize("host", ["192.168.0.1", "localhost:1", "169.254.169.254", "example.org", "127.0.0.1:1"])
def test_a_host_that_is_not_listed_is_not_asked(puller: Puller, host: str) -> None:
    with pytest.raises(InvalidRequest, match="is not listed"):
        puller.pull(f"{host}/acme/tiny")
    with pytest.raises(InvalidRequest, match="is not listed"):
        puller.push(f"{host}/acme/tiny")


def test_http_is_for_those_who_say_so(puller: Puller) -> None:
    with pytest.raises(InvalidRequest, match="insecure"):
        puller.pull(f"http://{puller.site.host}/acme/tiny", insecure=False)
    assert puller.site.log == []
    assert puller.pull(f"http://{puller.site.host}/acme/tiny")[-1].status == "writing manifest"


# Tokens.


def test_a_token_is_asked_for_and_shown_to_the_registry_alone(puller: Puller) -> None:
    puller.site.token = "t0ken"
    puller.pull()
    assert whole(puller)
    assert {one.authorization for one in puller.site.requests(site="cdn")} == {""}
    assert {one.authorization for one in puller.site.requests(path="/blobs/")} == {"Bearer t0ken"}
    asked = puller.site.requests(path="/token")
    assert len(asked) == 1
    assert "scope=repository%3Ax%3Apull%2Cpush" in asked[0].path


def test_a_token_is_not_asked_for_elsewhere(puller: Puller) -> None:
    puller.site.token = "t0ken"
    puller.site.realm = f"http://{puller.site.cdn}/token"
    with pytest.raises(BackendError, match="at its own host only"):
        puller.pull()
    assert puller.site.requests(site="cdn") == []


def test_a_token_that_runs_out_is_renewed(puller: Puller) -> None:
    puller.site.token = "first"
    original = puller.site.fault

    def changing(where: str, *kinds: str) -> Fault | None:
        if where == "blob" and puller.site.token == "first":
            puller.site.token = "second"
        return original(where, *kinds)  # type: ignore[arg-type]

    puller.site.fault = changing  # type: ignore[method-assign]
    puller.pull()
    assert whole(puller)
    assert len(puller.site.requests(path="/token")) == 2


@pytest.mark.parametrize(
    "fault", [Fault("body", text="no"), Fault("body", text='{"token":"a b"}'), Fault("endless"), Fault("status", 500)]
)
def test_a_token_that_is_none_ends_it(puller: Puller, fault: Fault) -> None:
    puller.site.token = "t0ken"
    fault.where = "token"
    puller.site.faults.append(fault)
    with pytest.raises(BackendError):
        puller.pull()
    assert len(puller.site.log) < 5


# Pausing, and two at once.


def test_closing_pauses_and_the_next_pull_goes_on(puller: Puller) -> None:
    puller.site.faults.append(Fault("stall", 90 * KIB))

    async def half() -> None:
        steps = puller.fetching().pull(puller.named("acme/tiny"), insecure=True)
        async for step in steps:
            if step.completed >= 80 * KIB:
                break
        await steps.aclose()

    asyncio.run(half())
    first = puller.site.served(DIGEST)
    puller.site.faults.clear()
    there = Ledger(puller.store.partial(DIGEST))
    there.open(1 << 30)
    known = list(there.spans)
    there.close()
    assert there.spans.total >= 80 * KIB
    puller.site.log.clear()
    puller.pull()
    assert whole(puller)
    assert overlap(puller.site.served(DIGEST), known) == 0
    assert sum(end - start for start, end in first) >= there.spans.total


def test_two_pulls_of_one_model_fetch_it_once(puller: Puller) -> None:
    async def both() -> None:
        async def one(fetching: Fetching) -> None:
            async for _ in fetching.pull(puller.named("acme/tiny"), insecure=True):
                pass

        await asyncio.gather(one(puller.fetching()), one(puller.fetching()))

    asyncio.run(both())
    assert whole(puller)
    assert sum(end - start for start, end in puller.site.served(DIGEST)) == len(WEIGHTS)


def test_who_waits_for_another_sees_how_far_it_is(puller: Puller) -> None:
    puller.site.faults.append(Fault("stall", 90 * KIB))

    async def both() -> None:
        first = puller.fetching().pull(puller.named("acme/tiny"), insecure=True)
        second = puller.fetching().pull(puller.named("acme/tiny"), insecure=True)
        async for step in first:
            if step.completed >= 80 * KIB:
                break
        seen = [step async for step in _until(second, lambda step: step.completed >= 32 * KIB)]
        assert (seen[-1].digest, seen[-1].total) == (DIGEST, len(WEIGHTS))
        await second.aclose()
        await first.aclose()

    asyncio.run(both())


async def _until(
    steps: AsyncGenerator[Progress, None], enough: Callable[[Progress], bool]
) -> AsyncGenerator[Progress, None]:
    async for step in steps:
        yield step
        if enough(step):
            return


def test_the_loop_stays_free(puller: Puller) -> None:
    """Hashing and writing are the threads' business."""
    seen: set[str] = set()
    from backends.fetching.partial import Partial

    for name in ("write", "settle", "digest_on", "finish", "begin", "open", "check_room"):
        original = getattr(Partial, name)

        def spied(self: Partial, *arguments: object, original: object = original) -> object:
            seen.add(threading.current_thread().name.partition("_")[0])
            return original(self, *arguments)  # type: ignore[operator]

        setattr(Partial, name, spied)
        try:
            puller.pull()
        finally:
            setattr(Partial, name, original)
        for file in (puller.folder / "blobs").iterdir():
            file.unlink()
    assert seen == {"fetch"}
