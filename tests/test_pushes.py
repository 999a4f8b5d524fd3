"""Pushes to a registry: what it lacks goes up in pieces, and the manifest last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.fetching import pushing
from backends.fetching.hosts import Hosts, Source
from canonical.digests import digest_of
from canonical.errors import BackendError, ModelNotFound
from tests.pulls import KIB, Puller, weights
from tests.registry import Fault, Site, registry
from tests.stores import put

WEIGHTS = weights(500 * KIB)
DIGEST = digest_of(WEIGHTS)
PIECE = 64 * KIB


@pytest.fixture
def site() -> Iterator[Site]:
    with registry() as one:
        yield one


@pytest.fixture
def puller(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Puller:
    monkeypatch.setattr(pushing, "PIECE", PIECE)
    found = Puller(tmp_path / "store", site)
    put(found.store, f"{site.host}/acme/tiny", model=WEIGHTS, template=b"{{ .Prompt }}")
    return found


def test_a_push_tells_ollamas_lines_and_brings_the_model(puller: Puller) -> None:
    steps = puller.push()
    statuses = list(dict.fromkeys(step.status for step in steps))
    config = digest_of(b'{"model_format":"gguf"}')[7:19]
    pushed = [f"pushing {DIGEST[7:19]}", f"pushing {digest_of(b'{{ .Prompt }}')[7:19]}", f"pushing {config}"]
    assert statuses == ["retrieving manifest", *pushed, "pushing manifest"]
    assert [step.completed for step in steps if step.digest == DIGEST][-1] == len(WEIGHTS)
    assert puller.site.blobs[DIGEST] == WEIGHTS
    assert list(puller.site.manifests) == ["acme/tiny:latest"]


def test_what_was_pushed_can_be_pulled(puller: Puller, tmp_path: Path) -> None:
    puller.push()
    other = Puller(tmp_path / "other", puller.site)
    other.pull()
    assert other.listed() == {f"{puller.site.host}/acme/tiny:latest"}
    assert other.store.blob(DIGEST).read_bytes() == WEIGHTS


def test_what_is_there_is_not_sent(puller: Puller) -> None:
    puller.push()
    puller.site.log.clear()
    puller.push()
    assert {one.method for one in puller.site.log} == {"HEAD", "PUT"}


def test_pieces_go_where_the_registry_sends_them_without_our_token(puller: Puller) -> None:
    puller.site.redirects_uploads = True
    puller.site.token = "t0ken"
    puller.push()
    assert puller.site.blobs[DIGEST] == WEIGHTS
    sent = puller.site.requests(site="cdn", method="PUT")
    assert len(sent) == 8 + 2
    assert {one.authorization for one in sent} == {""}
    last = puller.site.requests(site="registry", method="PUT", path="etag=")
    assert last[0].path.endswith("-8")


def test_a_name_and_a_password_get_the_token(puller: Puller) -> None:
    puller.site.token, puller.site.login = "t0ken", "me:secret"
    with pytest.raises(BackendError, match="unauthorized: access denied"):
        puller.push()
    fetching = puller.fetching()
    fetching._hosts = Hosts([Source(host=puller.site.host, user="me", password="secret"), puller.site.cdn])

    async def run() -> None:
        async for _ in fetching.push(puller.named("acme/tiny"), insecure=True):
            pass

    asyncio.run(run())
    assert puller.site.blobs[DIGEST] == WEIGHTS
    assert {one.authorization for one in puller.site.requests(path="/blobs/")} >= {"Bearer t0ken"}


@pytest.mark.parametrize(
    "fault", [Fault("status", 500, times=2), Fault("status", 429, text="1", times=1), Fault("drop", 10 * KIB, times=2)]
)
def test_a_piece_that_breaks_goes_on_from_where_it_stands(puller: Puller, fault: Fault) -> None:
    fault.where = "upload"
    puller.site.faults.append(fault)
    puller.push()
    assert puller.site.blobs[DIGEST] == WEIGHTS


def test_a_registry_that_fails_for_good_gets_no_manifest(puller: Puller) -> None:
    puller.site.faults.append(Fault("status", 500, where="upload"))
    with pytest.raises(BackendError, match="status 500"):
        puller.push()
    assert puller.site.manifests == {}
    assert len(puller.site.log) < 20


def test_a_model_that_is_not_here_cannot_be_pushed(puller: Puller) -> None:
    with pytest.raises(ModelNotFound):
        puller.push("acme/other")
    assert puller.site.log == []
