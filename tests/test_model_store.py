"""The model store: names that never escape, changes that are whole or not at all, and nothing left that nobody needs."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import structs

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.llama_cpp.making import make
from backends.store import OllamaFolder, Store, locks
from backends.store.claims import Claim
from backends.store.manifests import layer, write_manifest
from canonical.digests import digest_of
from canonical.errors import InvalidRequest, ModelNotFound, StorageFailed
from tests.stores import blobs, leftovers, listed, named, put
from tests.test_gguf import head, pair, text

ROOT = Path(__file__).parent.parent
TINY = head([pair("general.architecture", 8, text("llama"))], text("w") + struct.pack("<IQIQ", 1, 8, 0, 0), 1) + bytes(
    64
)
"""A GGUF file of eight numbers."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def test_a_model_lies_where_ollama_would_look_for_it(store: Store) -> None:
    manifest = put(store, "acme/bot:7b", model=b"weights", system=b"Be kind.")
    path = store.folder / "manifests" / "registry.ollama.ai" / "acme" / "bot" / "7b"
    assert path.read_bytes() == write_manifest(manifest)
    for one in manifest.blobs:
        assert (store.folder / "blobs" / one.digest.replace(":", "-")).stat().st_size == one.size
    assert b'"mediaType":"application/vnd.docker.distribution.manifest.v2+json"' in path.read_bytes()
    assert b'"mediaType":"application/vnd.ollama.image.model"' in path.read_bytes()
    assert leftovers(store.folder) == []


def test_a_store_that_is_not_there_is_empty_and_reading_makes_nothing(store: Store) -> None:
    assert store.models() == []
    assert store.find(named("x")) is None
    store.sweep()
    with pytest.raises(ModelNotFound):
        store.copy(named("x"), named("y"))
    assert not store.folder.exists()


def test_case_tells_no_two_names_apart_and_the_first_spelling_stays(store: Store) -> None:
    put(store, "Acme/Bot:Big", model=b"one")
    put(store, "acme/bot:big", model=b"two")
    assert listed(store) == {"Acme/Bot:Big"}
    found = store.find(named("ACME/BOT:BIG"))
    assert found is not None
    assert store.content(found.manifest.of("model")[0].digest) == b"two"
    assert len(blobs(store.folder)) == 2  # the first one's weights went with it
    store.copy(named("acme/bot:big"), named("ACME/bot:small"))
    assert listed(store) == {"Acme/Bot:Big", "Acme/Bot:small"}
    store.delete(named("ACME/BOT:big"))
    assert listed(store) == {"Acme/Bot:small"}


@given(st.text(max_size=40) | st.text(alphabet="./\\:~%\0-_aB", max_size=20))
@settings(max_examples=300)
def test_no_text_becomes_a_path_outside_the_store(name_or_digest: str) -> None:
    folder = Path("/nowhere/store")
    store = OllamaFolder(folder)
    name = names.parse(name_or_digest)
    if name is not None:
        path = store._spelled(name)
        assert path.parts[: len(store.manifests.parts)] == store.manifests.parts
        assert len(path.parts) == len(store.manifests.parts) + 4
        assert ".." not in path.parts
        assert "." not in path.parts
    with pytest.raises(ValueError, match="no name"):
        store._spelled(Name("..", "..", name_or_digest, ".."))
    try:
        blob = store.blob(name_or_digest)
    except InvalidRequest:
        return
    assert blob.parent == store.blobs
    assert len(blob.name) == 71


def test_a_model_with_a_part_missing_or_cut_is_not_listed(store: Store) -> None:
    manifest = put(store, "m", model=b"weights", params=b"{}")
    blob = store.blob(manifest.of("model")[0].digest)
    blob.write_bytes(b"weight")
    assert listed(store) == set()
    assert store.find(named("m")) is None
    blob.unlink()
    assert listed(store) == set()
    with pytest.raises(ModelNotFound):
        store.copy(named("m"), named("n"))
    with pytest.raises(InvalidRequest):
        store.commit(named("n"), write_manifest(manifest))
    blob.write_bytes(b"weights")
    assert listed(store) == {"m:latest"}


def test_files_that_are_no_manifests_cost_only_themselves(store: Store) -> None:
    put(store, "m", model=b"weights")
    library = store.folder / "manifests" / "registry.ollama.ai" / "library"
    (library / "m" / "broken").write_bytes(b'{"layers": [{"digest": "sha256:../../etc/passwd", "size": 1}]}')
    (library / "m" / "text").write_bytes(b"no JSON")
    (library / "m" / "deep").mkdir()
    (library / ".DS_Store").write_bytes(b"")
    (store.folder / "manifests" / "..bad").mkdir()
    os.mkfifo(library / "m" / "pipe")
    assert listed(store) == {"m:latest"}
    put(store, "n", model=b"others")
    store.delete(named("n"))
    assert digest_of(b"others") in blobs(store.folder)  # as long as nobody can read what the broken ones name
    (library / "m" / "broken").unlink()
    (library / "m" / "text").unlink()
    assert store.prune([digest_of(b"others")])


def test_a_pipe_in_a_blobs_place_keeps_nobody_waiting(store: Store) -> None:
    manifest = put(store, "m", model=b"weights")
    digest = f"sha256:{'a' * 64}"
    os.mkfifo(store.blob(digest))
    path = store.folder / "manifests" / "registry.ollama.ai" / "library" / "m" / "pipe"
    path.write_bytes(write_manifest(structs.replace(manifest, layers=(*manifest.layers, layer("system", digest, 0)))))
    assert listed(store) == {"m:latest"}
    assert store.find(named("m:pipe")) is None


def test_pipes_where_claims_and_drafts_lie_keep_nobody_waiting(store: Store) -> None:
    put(store, "m", model=b"weights")
    (store.folder / "using").mkdir(exist_ok=True)
    library = store.folder / "manifests" / "registry.ollama.ai" / "library" / "m"
    for path in (store.folder / "using" / "1-a", library / ".tmp-a", store.blobs / ".tmp-a"):
        os.mkfifo(path)
    with store.claim([]):
        assert store.claimed() == set()
    store.sweep()
    assert listed(store) == {"m:latest"}


def test_a_link_in_a_downloads_place_is_not_followed(store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"precious")
    partial = store.partial(digest_of(b"weights"))
    partial.symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        locks.held(partial)
    partial.unlink()
    file = locks.held(partial)
    assert file is not None
    os.close(file)
    assert mine.read_bytes() == b"precious"


def test_blobs_of_others_stay_and_open_files_go_on(store: Store) -> None:
    put(store, "a", model=b"shared", system=b"only a")
    put(store, "b", model=b"shared")
    opened = store.blob(put(store, "c", model=b"loaded").of("model")[0].digest).open("rb")
    store.delete(named("a"))
    assert listed(store) == {"b:latest", "c:latest"}
    assert len(blobs(store.folder)) == 3
    store.delete(named("c"))
    with opened:
        assert opened.read() == b"loaded"
    store.delete(named("b"))
    assert blobs(store.folder) == set()
    assert not list((store.folder / "manifests").iterdir())
    with pytest.raises(ModelNotFound):
        store.delete(named("b"))


def test_what_somebody_is_about_to_use_is_not_taken_away(store: Store) -> None:
    manifest = put(store, "a", model=b"weights")
    other = Store(store.folder)  # as another process would have it
    with other.claim(manifest.digests):
        store.delete(named("a"))
        other.commit(named("b"), write_manifest(manifest))
    assert listed(store) == {"b:latest"}
    store.promise(manifest.of("model")[0].digest)
    store.delete(named("b"))
    assert blobs(store.folder) == {manifest.of("model")[0].digest}
    store.commit(named("c"), write_manifest(put(store, "d", model=b"weights")))
    store.delete(named("c"))
    store.delete(named("d"))
    assert blobs(store.folder) == set()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_copy_of_what_goes_or_changes_meanwhile_is_refused_or_of_the_new_one(store: Store, replaced: bool) -> None:
    put(store, "a", model=b"weights")
    other, claim = Store(store.folder), store.claim

    def late(digests: Iterable[str]) -> Claim:
        store.claim = claim  # type: ignore[method-assign]
        other.delete(named("a"))
        if replaced:
            put(other, "a", model=b"others")
        return claim(digests)

    store.claim = late  # type: ignore[method-assign]
    if replaced:
        store.copy(named("a"), named("b"))
        assert store.manifest(named("b")) == store.manifest(named("a"))
    else:
        with pytest.raises(ModelNotFound):
            store.copy(named("a"), named("b"))
    assert listed(store) == ({"a:latest", "b:latest"} if replaced else set())


def test_a_manifest_that_cannot_be_read_keeps_every_blob(store: Store) -> None:
    put(store, "a", model=b"weights")
    (store.folder / "manifests" / "registry.ollama.ai" / "library" / "a" / "newer").write_bytes(b"\x00 who knows")
    store.delete(named("a"))
    assert len(blobs(store.folder)) == 2


def test_the_next_start_sweeps_what_a_killed_one_left_but_not_what_runs(store: Store, tmp_path: Path) -> None:
    put(store, "m", model=b"weights")
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import os, sys\nfrom pathlib import Path\nfrom backends.store import Store\n"
                "store = Store(Path(sys.argv[1]))\ndraft = store.draft()\ndraft.write(b'half')\n"
                "store.claim(['sha256:' + 'a' * 64]).__enter__()\nos._exit(9)"
            ),
            str(store.folder),
        ],
        cwd=ROOT,
        check=False,
    )
    assert dead.returncode == 9
    running = store.draft()
    partial = store.partial("sha256:" + "b" * 64)
    partial.write_bytes(b"a download that goes on tomorrow")
    assert len(leftovers(store.folder)) == 3
    assert len(list((store.folder / "using").iterdir())) == 1
    Store(store.folder).sweep()
    assert leftovers(store.folder) == sorted([running.path.name, partial.name])
    assert listed(store) == {"m:latest"}
    partial.with_name(f"{partial.name}.ledger").write_bytes(b"what of it is there")
    with partial.open("rb") as file:
        assert locks.take(file.fileno())
        Store(store.folder).sweep(older=-1)
        assert partial.exists()  # somebody downloads it now
    with running:
        Store(store.folder).sweep(older=-1)
    assert leftovers(store.folder) == []
    assert listed(store) == {"m:latest"}
    assert store.claimed() == set()
    assert not list((store.folder / "using").iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_changes_nothing_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    manifest = put(store, "m", model=b"weights")
    before = blobs(store.folder)

    def full(_file: int, _content: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr("backends.store.writing.os.write", full)
        with pytest.raises(StorageFailed, match="no room") as failed:
            store.add(b"more")
        with pytest.raises(StorageFailed, match="no room"):
            store.copy(named("m"), named("n/o:p"))
        with pytest.raises(StorageFailed, match="no room"):
            store.commit(named("n/o:p"), write_manifest(manifest))
    assert failed.value.status == 507
    assert blobs(store.folder) == before
    assert leftovers(store.folder) == []
    assert listed(store) == {"m:latest"}
    assert not (store.folder / "manifests" / "registry.ollama.ai" / "n").exists()
    assert store.claimed() == set()
    assert not list((store.folder / "using").iterdir())
    store.copy(named("m"), named("n"))
    assert listed(store) == {"m:latest", "n:latest"}


def test_files_of_another_store_are_linked_or_copied_and_stay(store: Store, tmp_path: Path, monkeypatch) -> None:
    theirs = Store(tmp_path / "theirs")
    digest = put(theirs, "m", model=b"weights").of("model")[0].digest
    store.link(digest, theirs.blob(digest))
    assert store.blob(digest).stat().st_ino == theirs.blob(digest).stat().st_ino

    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refused)
    other = Store(tmp_path / "other")
    far: list[tuple[int, int]] = []
    other.link(digest, theirs.blob(digest), lambda done, total: far.append((done, total)))
    assert far == [(7, 7)]
    assert other.blob(digest).read_bytes() == b"weights"
    assert leftovers(other.folder) == []
    assert listed(theirs) == {"m:latest"}


KILLED = """
import os, sys
from pathlib import Path
from backends.store import Store, writing, store as module
from canonical.recipe import Recipe
from tests.stores import named
step, folder = int(sys.argv[1]), Path(sys.argv[2])
count = 0
def dying(call):
    def counted(*arguments, **keywords):
        global count
        count += 1
        if count == step:
            os.kill(os.getpid(), 9)
        return call(*arguments, **keywords)
    return counted
os.fsync = lambda file: None  # the system does not die with the process
for name in ("write", "fsync", "open", "close"):
    setattr(os, name, dying(getattr(os, name)))
for name in ("replace", "unlink", "rmdir", "mkdir"):
    setattr(Path, name, dying(getattr(Path, name)))
store = Store(folder)
with store.draft() as draft:
    draft.write(TINY)
    draft.keep(store.blob(draft.digest))
make(store, named("new"), Recipe(files={"m.gguf": draft.digest}, system="new"), None, lambda _: None)
store.copy(named("new"), named("second"))
store.delete(named("new"))
store.delete(named("old"))
"""


def test_a_kill_at_any_step_leaves_whole_models_and_the_next_start_tidies(tmp_path: Path) -> None:
    """Before every call that changes the disk, in one story of create, copy and delete."""
    steps = 0
    put(Store(tmp_path / "before"), "old", model=TINY, system=b"old")
    while True:
        steps += 1
        folder = tmp_path / str(steps)
        shutil.copytree(tmp_path / "before", folder)
        pid = os.fork()
        if pid == 0:
            sys.argv = ["", str(steps), str(folder)]
            try:
                exec(KILLED, {"TINY": TINY, "make": make})
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        store = Store(folder)
        store.sweep(older=-1)
        found = store.models()
        needed = {digest for model in found for digest in model.manifest.digests}
        assert blobs(folder) == needed, f"killed at step {steps}"
        assert leftovers(folder) == []
        assert store.claimed() == set()
        assert {model.id for model in found} <= {"old:latest", "new:latest", "second:latest"}
        every = [path for path in (folder / "manifests").rglob("*") if path.is_file()]
        assert len(every) == len(found), "a manifest without its blobs"
        if not os.WIFSIGNALED(status):
            assert {model.id for model in found} == {"second:latest"}
            break
    assert steps > 60


class Stories(RuleBasedStateMachine):
    """Any sequence of changes, by two that share one folder: what is listed is whole, and no blob is there for nothing."""

    NAMES = ("a", "A", "b:1", "acme/c", "hf.co/acme/d:Q4")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.place = tempfile.TemporaryDirectory()
        self.stores = (Store(Path(self.place.name)), Store(Path(self.place.name)))
        self.model: dict[str, frozenset[bytes]] = {}
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(os, "fsync", lambda _: None)

    def teardown(self) -> None:
        self.patched.undo()
        self.place.cleanup()

    @rule(
        who=st.integers(0, 1),
        name=st.sampled_from(NAMES),
        weights=st.sampled_from([b"x", b"y", b"z"]),
        system=st.binary(max_size=2),
    )
    def create(self, who: int, name: str, weights: bytes, system: bytes) -> None:
        put(self.stores[who], name, model=weights, system=system)
        self.model[names.key(name)] = frozenset({weights, system, b'{"model_format":"gguf"}'})

    @precondition(lambda self: self.model)
    @rule(who=st.integers(0, 1), source=st.sampled_from(NAMES), destination=st.sampled_from(NAMES))
    def copy(self, who: int, source: str, destination: str) -> None:
        if names.key(source) in self.model:
            self.stores[who].copy(named(source), named(destination))
            self.model[names.key(destination)] = self.model[names.key(source)]
        else:
            with pytest.raises(ModelNotFound):
                self.stores[who].copy(named(source), named(destination))

    @rule(who=st.integers(0, 1), name=st.sampled_from(NAMES))
    def delete(self, who: int, name: str) -> None:
        if self.model.pop(names.key(name), None):
            self.stores[who].delete(named(name))
        else:
            with pytest.raises(ModelNotFound):
                self.stores[who].delete(named(name))

    @invariant()
    def every_model_is_whole_and_every_blob_is_needed(self) -> None:
        if not self.stores[0].folder.joinpath("blobs").is_dir():
            return
        for store in self.stores:
            found = store.models()
            assert {names.key(model.id) for model in found} == set(self.model)
            for model in found:
                contents = frozenset(store.content(one.digest) for one in model.manifest.blobs)
                assert contents == self.model[names.key(model.id)]
            assert blobs(store.folder) == {digest for model in found for digest in model.manifest.digests}
            assert leftovers(store.folder) == []


TestStories = Stories.TestCase
TestStories.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_whoever_changes_what_manifests_name_has_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    lock = store.folder / "lock"

    def watched(name: str) -> None:
        act = getattr(Store, name)

        def held(self: Store, *arguments: object) -> object:
            assert not locks.deserted(lock), f"{name} without the lock"
            seen.append(name)
            return act(self, *arguments)

        monkeypatch.setattr(Store, name, held)

    for name in ("_digests", "_drop", "_sweep", "_tidy"):
        watched(name)
    put(store, "a", model=b"one")
    put(store, "a", model=b"two")
    store.copy(named("a"), named("b"))
    store.delete(named("a"))
    store.prune([])
    store.sweep()
    assert set(seen) == {"_digests", "_drop", "_sweep", "_tidy"}
    assert locks.deserted(lock)


def test_two_processes_and_four_threads_change_one_store_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "models"

    def work(who: int) -> None:
        store = Store(folder)
        for turn in range(12):
            put(store, f"m{(who + turn) % 5}", model=b"%d" % (turn % 3), system=b"%d" % who)
            with suppress(ModelNotFound, InvalidRequest):  # another was faster
                store.copy(named(f"m{turn % 5}"), named(f"c{turn % 3}"))
            with suppress(ModelNotFound):
                store.delete(named(f"m{(turn + 1) % 5}"))

    pids = []
    for number in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with ThreadPoolExecutor(4) as crowd:
                    list(crowd.map(work, range(number * 4, number * 4 + 4)))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store = Store(folder)
    found = store.models()
    assert found
    store.sweep(older=-1)
    assert blobs(folder) == {digest for model in found for digest in model.manifest.digests}
    every = [path for path in (folder / "manifests").rglob("*") if path.is_file()]
    assert len(every) == len(found)
    assert leftovers(folder) == []
