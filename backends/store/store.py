"""Our own store: what ``folder`` reads, changed so that a kill at any moment leaves nothing half.

Blobs come first and the manifest last, each by a rename; a delete takes the manifest first and then the blobs that no
other one names. Changes of manifests, and of blobs because of them, happen under one lock, which other processes that
share the folder take too. Who is about to name blobs in a manifest *claims* them, so that no delete takes them away.
Everything here blocks for a disk's time.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.store import locks
from backends.store.claims import Claim, living
from backends.store.folder import OllamaFolder
from backends.store.manifests import read_manifest
from backends.store.writing import PIECE, TEMPORARY, Draft, failing, sync_folder, write_file
from canonical.digests import digest_of, is_blob, normal
from canonical.errors import BackendError, InvalidRequest, ModelNotFound

STALE = 7 * 24 * 3600.0
"""Seconds after which a download that nobody goes on with is given up, and a blob that no manifest names."""
_PARTIAL = "-partial"
_LINK = "-link"

logger = logging.getLogger("dragoman.store")


class Store(OllamaFolder):
    """One folder, made at the first write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._using = folder / "using"
        self._parts = folder / "parts"
        self._promised: dict[str, float] = {}
        self._swept = False

    def claim(self, digests: Iterable[str]) -> Claim:
        """Keep blobs, there or still to come, from every delete until the ``with`` block ends. Raises StorageFailed."""
        return Claim(self._using, self._changing, digests)

    def promise(self, digest: str, seconds: float = 600.0) -> None:
        """Somebody was told that a blob is there, and will make a model of it: no delete of this process takes it."""
        self._promised[normal(digest)] = time.monotonic() + seconds

    def partial(self, digest: str) -> Path:
        """Where a download of the blob may be written. The folder is there then; beside it are its own further files."""
        path = self.blob(digest)
        with failing():
            self.blobs.mkdir(parents=True, exist_ok=True)
        return path.with_name(f"{path.name}{_PARTIAL}")

    def keep(self, digest: str, partial: Path) -> None:
        """Make a blob of a file that is whole, checked and durable. Raises StorageFailed."""
        path = self.blob(digest)
        with failing():
            partial.replace(path)
            sync_folder(path.parent)

    def draft(self) -> Draft:
        """A blob on its way, of which the digest is not known yet."""
        self._begin()
        return Draft(self.blobs)

    def add(self, content: bytes) -> str:
        """A small blob; its digest. Raises StorageFailed."""
        digest = digest_of(content)
        if not self.has(digest):
            self._begin()
            write_file(self.blob(digest), content)
        return digest

    def link(self, digest: str, source: Path, tell: Callable[[int, int], None] = lambda _done, _total: None) -> None:
        """A blob out of a file of that digest elsewhere: a hard link where that can be, else a copy.

        ``tell`` takes how many bytes of how many are copied; what it raises stops the work.
        """
        target = self.blob(digest)
        if self.has(digest):
            return
        self._begin()
        with Draft(self.blobs) as draft:
            linked = draft.path.with_name(f"{draft.path.name}{_LINK}")
            try:
                with failing():
                    _link(source, linked, tell)
                    linked.replace(target)
                    sync_folder(self.blobs)
            finally:
                with suppress(OSError):
                    linked.unlink(missing_ok=True)

    def assembled(self, model: str, parts: Sequence[Path]) -> tuple[Path, ...]:
        """Links to the parts of a split model, here or elsewhere, under names that belong together. Raises StorageFailed."""
        self._begin()
        folder = self._parts / normal(f"sha256:{model}").partition(":")[2]
        found = []
        with failing():
            folder.mkdir(parents=True, exist_ok=True)
            for number, part in enumerate(parts, 1):
                link = folder / f"model-{number:05}-of-{len(parts):05}.gguf"
                if not link.exists():
                    fresh = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
                    fresh.symlink_to(part.resolve())
                    fresh.replace(link)
                found.append(link)
        return tuple(found)

    def commit(self, name: Name, manifest: bytes) -> None:
        """Give a model its name, in place of what has it. The blobs that only that one needed go.

        Raises:
            InvalidRequest: a blob is missing.
            StorageFailed: nothing has changed then.
        """
        needed = read_manifest(manifest).blobs
        with self._changing():
            for layer in needed:
                if self.size(layer.digest) != layer.size:
                    raise InvalidRequest(f"blob {layer.digest} is not there", param="files")
            path = self._spelled(name)
            before = self._digests(path)
            try:
                write_file(path, manifest)
            except BaseException:
                self._tidy(path.parent)
                raise
            for layer in needed:
                self._promised.pop(layer.digest, None)
            self._drop(before)

    def copy(self, source: Name, destination: Name) -> None:
        """A second name. Raises ModelNotFound, StorageFailed."""
        while True:
            content = self.manifest(source)
            if content is None or self.find(source) is None:
                raise ModelNotFound(f"model {names.written(source)!r} not found", param="source")
            with self.claim(read_manifest(content).digests):
                if self.manifest(source) == content:  # else it was changed before its blobs were claimed
                    self.commit(destination, content)
                    return

    def delete(self, name: Name) -> None:
        """Remove a model, whole or not, and the blobs that no other one needs. Raises ModelNotFound, StorageFailed."""
        with self._changing():
            path = self._path(name)
            if path is None:
                raise ModelNotFound(f"model {names.written(name)!r} not found", param="model")
            digests = self._digests(path)
            with failing():
                path.unlink()
                sync_folder(path.parent)
            self._tidy(path.parent)
            self._drop(digests)

    def prune(self, digests: Collection[str]) -> bool:
        """Remove those of these blobs that nobody needs; False: there are none."""
        with self._changing():
            return self._drop(digests)

    def sweep(self, older: float = STALE) -> None:
        """Remove what killed processes left: their temporary files, and blobs and downloads untouched for ``older`` seconds."""
        if not self.folder.is_dir():
            return
        with self._changing():
            self._sweep(older)

    def claimed(self) -> set[str]:
        """What is about to be used, by whichever process. Claims of dead ones are removed."""
        now = time.monotonic()
        found = {digest for digest, until in self._promised.items() if until > now}
        self._promised = {digest: until for digest, until in self._promised.items() if until > now}
        return found | living(self._using)

    @contextmanager
    def _changing(self) -> Generator[None]:
        """Hold the store's lock."""
        self._begin()
        with ExitStack() as stack:
            with failing():
                stack.enter_context(locks.alone(self.folder / "lock"))
            yield

    def _begin(self) -> None:
        """The folders; the first time, what earlier processes left is removed."""
        with failing():
            self.blobs.mkdir(parents=True, exist_ok=True)
            self.manifests.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            with failing(), locks.alone(self.folder / "lock"):
                self._sweep(STALE)

    def _digests(self, path: Path) -> frozenset[str]:
        """What the manifest at ``path`` needs; nothing where there is none, or none that can be read."""
        try:
            return read_manifest(path.read_bytes()).digests
        except (OSError, BackendError):
            return frozenset()

    def _needed(self) -> set[str] | None:
        """The digests of all manifests and claims; None where a manifest cannot be read: nothing is known then."""
        found = self.claimed()
        for _, path in self._tags():
            try:
                found |= read_manifest(path.read_bytes()).digests
            except (OSError, BackendError):
                logger.warning("a manifest of the store cannot be read: no blob is removed")
                return None
        return found

    def _drop(self, digests: Collection[str]) -> bool:
        """Remove those that nobody needs. Under the lock."""
        mine = {normal(digest) for digest in digests}
        needed = self._needed() if mine else None
        if needed is None:
            return False
        gone = False
        for digest in mine - needed:
            with suppress(OSError):
                self.blob(digest).unlink()
                gone = True
        return gone

    def _tidy(self, folder: Path) -> None:
        """Remove empty folders of names."""
        while folder != self.manifests and folder.is_relative_to(self.manifests):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _sweep(self, older: float) -> None:
        before = time.time() - older
        for path in [*_files(self.blobs), *self.manifests.glob(f"*/*/*/{TEMPORARY}*")]:
            if path.name.startswith(TEMPORARY) and locks.deserted(path.with_name(path.name.removesuffix(_LINK))):
                _remove(path)
        partials = {path.name.partition(_PARTIAL)[0] for path in _files(self.blobs) if _PARTIAL in path.name}
        for name in partials:
            group = [path for path in _files(self.blobs) if path.name.startswith(f"{name}{_PARTIAL}")]
            held = not locks.deserted(self.blobs / f"{name}{_PARTIAL}")
            if not held and all(_changed(path) < before for path in group):
                for path in group:
                    _remove(path)
        old = [path for path in _files(self.blobs) if is_blob(path.name) and _changed(path) < before]
        if old:
            self._drop([path.name for path in old])
        for folder in list(self._parts.iterdir()) if self._parts.is_dir() else []:
            if not all(link.exists() for link in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path, tell: Callable[[int, int], None]) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        # Another file system, or one whose files may not be linked.
        with source.open("rb") as file, target.open("wb") as copy:
            total, done = os.fstat(file.fileno()).st_size, 0
            while piece := file.read(PIECE):
                copy.write(piece)
                done += len(piece)
                tell(done, total)
            copy.flush()
            os.fsync(copy.fileno())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _changed(path: Path) -> float:
    """When it got this name or its content, whichever came last: a link keeps the time of its content."""
    with suppress(OSError):
        return path.stat().st_ctime
    return time.time()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
