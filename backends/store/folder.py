"""A store in Ollama's layout, read: ``manifests/<host>/<namespace>/<model>/<tag>`` and ``blobs/sha256-<hex>``.

A name becomes a path only in parts that ``adapters.ollama.names`` has matched, and a digest only as 64 digits. A model
is offered once all that its manifest names is there, each of its size. Everything here blocks for a disk's time.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.store.manifests import SIZE_LIMIT, Manifest, read_manifest
from canonical.digests import normal
from canonical.errors import BackendError


class Stored(Struct, frozen=True, kw_only=True):
    """A model of a store: all of it is there."""

    name: Name
    manifest: Manifest
    digest: str
    """64 hex digits of the manifest's SHA-256."""
    modified: int
    """Epoch nanoseconds."""

    @property
    def id(self) -> str:
        """Its name as lists write it."""
        return names.written(self.name)

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(layer.size for layer in self.manifest.blobs)


class OllamaFolder:
    """One store. The folder need not be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifests = folder / "manifests"
        self.blobs = folder / "blobs"
        self._known: dict[Path, tuple[tuple[int, int, int], Stored | None]] = {}

    def models(self) -> list[Stored]:
        """Every whole model, by name."""
        found = []
        for name, path in sorted(self._tags()):
            model = self._read(name, path)
            if model is not None and self._whole(model.manifest):
                found.append(model)
        return found

    def find(self, name: Name) -> Stored | None:
        """The model of this name, in whatever case it is written; None: there is none, or it is not whole."""
        path = self._path(name)
        if path is None:
            return None
        model = self._read(self._name(path), path)
        return model if model is not None and self._whole(model.manifest) else None

    def manifest(self, name: Name) -> bytes | None:
        """The manifest's bytes, be the model whole or not; None: there is none."""
        path = self._path(name)
        try:
            return None if path is None else path.read_bytes()
        except OSError:
            return None

    def blob(self, digest: str) -> Path:
        """Where the blob is, or would be. Raises InvalidRequest for what is no digest."""
        return self.blobs / normal(digest).replace(":", "-")

    def has(self, digest: str) -> bool:
        """Whether the blob is there, whole."""
        return self.blob(digest).is_file()

    def size(self, digest: str) -> int:
        """Bytes of a blob; -1: it is not there, or no file."""
        try:
            status = self.blob(digest).stat()
        except OSError:
            return -1
        return status.st_size if stat.S_ISREG(status.st_mode) else -1

    def content(self, digest: str, limit: int = SIZE_LIMIT) -> bytes:
        """A small blob. Raises BackendError."""
        try:
            with self.blob(digest).open("rb") as file:
                found = file.read(limit + 1)
        except OSError as error:
            raise BackendError(f"a part of the model cannot be read: {error.strerror}") from error
        if len(found) > limit:
            raise BackendError("a part of the model is larger than it may be")
        return found

    def _whole(self, manifest: Manifest) -> bool:
        return all(self.size(layer.digest) == layer.size for layer in manifest.blobs)

    def _tags(self) -> Iterator[tuple[Name, Path]]:
        """Every manifest, whole or not. Whatever is no name is passed over."""
        found: list[tuple[Path, tuple[str, ...]]] = [(self.manifests, ())]
        for _ in Name._fields:
            found = [(Path(entry.path), (*parts, entry.name)) for folder, parts in found for entry in _entries(folder)]
        for path, parts in found:
            name = Name(*parts)
            # A folder is no manifest, and a pipe keeps whoever opens it waiting for ever.
            if names.valid(name) and path.is_file():
                yield name, path

    def _path(self, name: Name) -> Path | None:
        """The manifest of ``name``, spelled as it is there; None: none is there."""
        path = self._spelled(name)
        return path if path.is_file() else None

    def _spelled(self, name: Name) -> Path:
        """Where the manifest of ``name`` is or would be: each part as it is spelled there already, if it is."""
        if not names.valid(name):
            raise ValueError("no name of a model")  # nobody gets here without parsing; a path must not depend on that
        path = self.manifests
        for part in name:
            there = [entry.name for entry in _entries(path)]
            if part not in there:
                part = min((name for name in there if name.lower() == part.lower()), default=part)
            path /= part
        return path

    def _name(self, path: Path) -> Name:
        return Name(*path.relative_to(self.manifests).parts)

    def _read(self, name: Name, path: Path) -> Stored | None:
        """A manifest, read once as long as it does not change; None for one that cannot be read."""
        try:
            status = path.stat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is not None and known[0] == key:
                return known[1]
            content = path.read_bytes() if status.st_size <= SIZE_LIMIT else b""
        except OSError:
            self._known.pop(path, None)
            return None
        try:
            digest = hashlib.sha256(content).hexdigest()
            model = Stored(name=name, manifest=read_manifest(content), digest=digest, modified=status.st_mtime_ns)
        except BackendError:
            model = None
        self._known[path] = (key, model)
        return model


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
