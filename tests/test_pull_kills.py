"""A pull that is killed, at any moment at all, is gone on with: no byte that was noted is fetched again."""

from __future__ import annotations

import multiprocessing.context
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.fetching.ledger import Ledger
from backends.fetching.spans import Spans
from canonical.digests import digest_of
from tests import dying
from tests.pulls import KIB, Puller, overlap, weights
from tests.registry import Fault, Site, registry

WEIGHTS = weights(1024 * KIB)
DIGEST = digest_of(WEIGHTS)
CONNECTIONS, BLOCK = 2, 64 * KIB
"""As in tests/dying.py."""


@pytest.fixture
def site() -> Iterator[Site]:
    with registry() as one:
        one.publish("acme/tiny", model=WEIGHTS, template=b"{{ .Prompt }}")
        yield one


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.dying"])
Process = multiprocessing.context.ForkServerProcess


def start(puller: Puller, at: int, log: Path) -> Process:
    arguments = (str(puller.folder), puller.site.hosts, puller.named("acme/tiny"), at, str(log))
    process = FORKS.Process(target=dying.main, args=arguments)
    process.start()
    return process


def ended(process: Process) -> int | None:
    process.join(30)
    return process.exitcode


def noted(puller: Puller) -> list[tuple[int, int]]:
    """What the ledger of the partial file has."""
    partial = puller.folder / "blobs" / f"{DIGEST.replace(':', '-')}-partial"
    if not partial.exists():
        return []
    ledger = Ledger(partial)
    ledger.open(partial.stat().st_size)
    ledger.close()
    return list(ledger.spans)


def resumed(puller: Puller, log: Path) -> None:
    """The next pull ends well, and fetches nothing twice but what was not noted yet."""
    known, site = noted(puller), puller.site
    written = Spans()
    for a, b in re.findall(r"^(\d+) (\d+)$", log.read_text() if log.exists() else "", re.MULTILINE):
        written.add(int(a), int(b))
    lost = written.total - overlap(list(written), known)
    had = puller.folder.joinpath("blobs", DIGEST.replace(":", "-")).exists()
    assert had or lost <= CONNECTIONS * BLOCK
    site.log.clear()
    puller.pull()
    again = site.served(DIGEST)
    assert overlap(again, known) == 0
    assert sum(b - a for a, b in again) == (0 if had else len(WEIGHTS) - sum(b - a for a, b in known))
    assert puller.store.blob(DIGEST).read_bytes() == WEIGHTS
    assert puller.listed() == {f"{site.host}/acme/tiny:latest"}
    assert [name for name in puller.files() if "partial" in name] == []


def test_killed_at_whatever_it_does(site: Site, tmp_path: Path) -> None:
    """Each moment is the one before a change of a file: of the blob, its ledger, the store, the manifest."""
    puller = Puller(tmp_path / "whole", site)
    assert ended(start(puller, 0, tmp_path / "log")) == 0
    found = re.search(r"done (\d+)", (tmp_path / "log").read_text())
    assert found is not None
    moments = int(found[1]) - 1
    assert moments > 60
    # All that follow the last byte, where names are given, and a sample of the many before.
    late = list(range(moments - 21, moments + 1))
    for batch in (late[0::3], late[1::3], late[2::3], [*range(1, moments - 21, 9)]):
        # Several at a time: each is its own store.
        running = []
        for at in batch:
            one = Puller(tmp_path / str(at), site)
            running.append((one, at, start(one, at, tmp_path / f"log{at}")))
        for _, at, process in running:
            # What threads do is not in the same order each time: a late moment may not come.
            assert ended(process) == -signal.SIGKILL or at > moments - 40
        for one, at, _ in running:
            resumed(one, tmp_path / f"log{at}")


@pytest.mark.parametrize("out", [1, 100 * KIB, 700 * KIB, 1024 * KIB])
def test_killed_after_so_many_bytes(site: Site, tmp_path: Path, out: int) -> None:
    puller = Puller(tmp_path / "store", site)
    processes: list[Process] = []
    site.at = (out, lambda: processes[0].kill())  # noqa: PLW0108  there is none yet
    site.faults.append(Fault("drip", 4 * KIB))
    processes.append(start(puller, 0, tmp_path / "log"))
    ended(processes[0])
    site.faults.clear()
    resumed(puller, tmp_path / "log")


def test_killed_again_and_again_it_gets_there(site: Site, tmp_path: Path) -> None:
    puller = Puller(tmp_path / "store", site)
    for _ in range(3):
        processes: list[Process] = []
        site.out = 0
        site.at = (300 * KIB, lambda: processes[0].kill())  # noqa: B023, PLW0108  there is none yet
        processes.append(start(puller, 0, tmp_path / "log"))
        ended(processes[0])
    resumed(puller, tmp_path / "log")


def test_two_processes_fetch_a_file_once(site: Site, tmp_path: Path) -> None:
    one, two = (start(Puller(tmp_path / "store", site), 0, tmp_path / f"log{n}") for n in (1, 2))
    assert (ended(one), ended(two)) == (0, 0)
    assert sum(b - a for a, b in site.served(DIGEST)) == len(WEIGHTS)
