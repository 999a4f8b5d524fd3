"""Blobs on their way into our store: fetched where they are missing, told of in Ollama's words, kept from deletion meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from msgspec import Struct

from adapters.ollama.names import Name
from backends import threads
from backends.base import Tell
from backends.fetching.download import Wanted, download, tidy
from backends.fetching.partial import too_little
from backends.fetching.patience import Pace
from backends.fetching.web import Web
from backends.store import Store
from backends.store.manifests import read_manifest
from canonical.digests import normal
from canonical.errors import BackendError, StorageFailed, Unsupported
from canonical.progress import Progress

MAGIC = b"GGUF"


class Part(Struct, frozen=True):
    """A blob that is needed."""

    digest: str
    size: int


class Blobs:
    """The store, as one pull sees it."""

    def __init__(self, store: Store, web: Web, pace: Pace) -> None:
        self.store = store
        self._web = web
        self._pace = pace
        self._rejected: list[str] = []

    @contextlib.asynccontextmanager
    async def claimed(self, parts: Iterable[Part]) -> AsyncGenerator[None]:
        """Nobody deletes these meanwhile. Raises StorageFailed where those that are missing do not fit."""
        wanted = list(parts)
        try:
            with contextlib.ExitStack() as stack:
                claim = self.store.claim(part.digest for part in wanted)
                await threads.call(lambda: stack.enter_context(claim))
                await asyncio.to_thread(self._check_room, wanted)
                yield
        finally:
            if self._rejected:
                await threads.call(lambda: self.store.prune(self._rejected))

    async def fetch(self, wanted: Wanted, tell: Tell) -> None:
        """Have this blob. Raises BackendError, StorageFailed."""
        digest = wanted.digest
        status = f"pulling {digest[7:19]}"
        partial, there = await asyncio.to_thread(lambda: (self.store.partial(digest), self.store.size(digest)))
        if there >= 0:
            if wanted.size and there != wanted.size:
                raise BackendError(f"its source says a wrong size of {digest}")
            await asyncio.to_thread(tidy, partial)
            tell(Progress(status=status, digest=digest, total=there, completed=there))
            return
        tell(Progress(status=status, digest=digest, total=wanted.size))
        await download(
            wanted,
            partial,
            web=self._web,
            keep=lambda: self.store.keep(digest, partial),
            has=lambda: self.store.has(digest),
            pace=self._pace,
            told=lambda there, whole: tell(Progress(status=status, digest=digest, total=whole, completed=there)),
        )
        size = await asyncio.to_thread(self.store.size, digest)
        tell(Progress(status=status, digest=digest, total=size, completed=size))

    async def check_weights(self, digests: Iterable[str]) -> None:
        """Raises Unsupported: a file is not what its maker calls it; it goes as soon as nobody claims it."""
        found = [digest for digest in digests if not await asyncio.to_thread(_is_gguf, self.store.blob(digest))]
        if found:
            self._rejected += found
            raise Unsupported("the model is not in GGUF form, the only one that is served here", param="model")

    async def commit(self, name: Name, manifest: bytes, tell: Tell) -> None:
        """All is there and checked: the model gets its name."""
        tell(Progress(status="verifying sha256 digest"))
        tell(Progress(status="writing manifest"))
        old = await asyncio.to_thread(self.store.manifest, name)
        await threads.call(lambda: self.store.commit(name, manifest))  # not left alone when the pull is stopped
        with contextlib.suppress(BackendError):
            if old is not None and read_manifest(old).digests - read_manifest(manifest).digests:
                tell(Progress(status="removing unused layers"))

    def _check_room(self, parts: list[Part]) -> None:
        missing = {normal(part.digest): part.size for part in parts if not self.store.has(part.digest)}
        if not missing:
            return
        folder = self.store.partial(next(iter(missing))).parent
        there = sum(_blocks(path) for path in map(self.store.partial, missing))
        need = sum(missing.values()) - there
        if hasattr(os, "statvfs"):
            found = os.statvfs(folder)
            free = found.f_bavail * found.f_frsize - self._pace.reserve
            if need > free:
                raise StorageFailed(too_little(need, free))


def _blocks(path: Path) -> int:
    """Bytes that a partial file takes on the disk: it may have holes."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
