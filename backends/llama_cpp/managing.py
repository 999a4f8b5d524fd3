"""Changing which models there are: the half of the backend that pulls, pushes, makes, copies and deletes.

Everything happens in the store. Files of the models folder, and what other programs keep, are never changed; making
a model of one of them gives the store links to its files, or copies.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from adapters.ollama import names
from adapters.ollama.names import Name
from backends import threads
from backends.llama_cpp.files import Files
from backends.llama_cpp.settings import LlamaCppSettings
from backends.store import Store
from backends.store.kept import Kept
from backends.store.writing import PIECE, check_room
from canonical.digests import normal
from canonical.errors import Conflict, InvalidRequest, ModelNotFound, NotImplementedHere
from canonical.progress import Progress
from canonical.recipe import Recipe

if TYPE_CHECKING:
    from backends.fetching.fetching import Fetching


class Managed:
    """What ``backends.base.Manages`` asks for, over one store."""

    _files: Files
    _settings: LlamaCppSettings
    _sources: Fetching | None = None

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Fetch a model into the store; a file of the models folder, which comes first, is there. Raises as ``Manages`` says."""
        if self._files.hides(name):
            return
        async with aclosing(self._fetching().pull(name, insecure=insecure)) as steps:
            async for step in steps:
                yield step

    async def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a model of the store to the registry that its name begins with."""
        async with aclosing(self._fetching().push(name, insecure=insecure)) as steps:
            async for step in steps:
                yield step

    async def create(self, name: str, recipe: Recipe) -> AsyncGenerator[Progress, None]:
        """Make a model. Closing stops, and leaves the models as they were.

        Raises:
            InvalidRequest, Conflict, ModelNotFound, StorageFailed.
        """
        store, target = self._store(), _parsed(name)

        def work(emit: threads.Emit[Progress]) -> None:
            def tell(step: Progress) -> None:
                if emit(step):
                    raise _Left

            self._check_free(name)
            try:
                # Here: reading them takes a moment, and most starts need none of it.
                from backends.llama_cpp.making import make, untranslated

                source = self._source(recipe.source) if recipe.source else None
                make(store, target, recipe, source, tell)
                reason = untranslated(recipe.template or "")
                if reason:
                    tell(Progress(status=f"the template cannot be used here ({reason}); the file's own renders"))
            except _Left:
                return

        async with aclosing(threads.stream(work, name="create")) as batches:
            async for batch in batches:
                for step in batch:
                    yield step

    async def copy(self, source: str, destination: str) -> None:
        """A second name; what is kept elsewhere gets its first one in the store. Raises as ``create``."""
        store, target = self._store(), _parsed(destination, param="destination")

        def work() -> None:
            self._check_free(destination)
            parsed = names.parse(source)
            if parsed is not None and self._folder_has(source) is None and store.find(parsed) is not None:
                store.copy(parsed, target)
                return
            from backends.llama_cpp.making import make

            make(store, target, Recipe(source=source), self._source(source), lambda _: None)

        await threads.call(work, name="copy")

    async def delete(self, name: str) -> None:
        """Remove a model from the store. Raises ModelNotFound; Conflict for what the store does not have."""
        store = self._store()

        def work() -> None:
            parsed = names.parse(name)
            if self._folder_has(name) is not None:
                raise Conflict(f"model {name!r} is a file of the models folder: remove it there", param="model")
            if parsed is not None and store.manifest(parsed) is not None:
                store.delete(parsed)
            elif self._files.shelves.find(name) is not None:
                raise Conflict(f"model {name!r} belongs to another program: remove it there", param="model")
            else:
                raise ModelNotFound(f"model {name!r} not found", param="model")

        await threads.call(work, name="delete")

    async def has_blob(self, digest: str) -> bool:
        """Whether a blob is there. Raises InvalidRequest for what is no digest."""
        store = self._store()
        there = await threads.call(lambda: store.has(digest), name="blob")
        if there:
            store.promise(digest)
        return there

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes], *, size: int = 0) -> bool:
        """Keep a blob; False where it was there already, and then ``pieces`` is not read.

        Raises:
            InvalidRequest: the bytes have another digest.
            StorageFailed: no room. Nothing is left behind then, nor where ``pieces`` raises.
        """
        store, digest = self._store(), normal(digest)
        if await self.has_blob(digest):
            return False
        draft = await threads.call(store.draft, name="blob")

        def write(content: bytes | bytearray) -> None:
            check_room(store.blobs, len(content))
            draft.write(content)

        try:
            await threads.call(lambda: check_room(store.blobs, size), name="blob")
            held = bytearray()
            async for piece in pieces:
                held += piece
                if len(held) >= PIECE:
                    full, held = held, bytearray()
                    await threads.call(lambda full=full: write(full), name="blob")  # type: ignore[misc]
            await threads.call(lambda: write(held), name="blob")
            if draft.digest != digest:
                raise InvalidRequest(f'digest mismatch, expected "{digest}", got "{draft.digest}"', param="digest")
            store.promise(digest)
            await threads.call(lambda: draft.keep(store.blob(digest)), name="blob")
        finally:
            await threads.call(draft.__exit__, name="blob")
        return True

    def _fetching(self) -> Fetching:
        if self._sources is None:
            from backends.fetching.fetching import Fetching

            self._sources = Fetching(self._store(), self._settings.pull)
        return self._sources

    def _store(self) -> Store:
        store = self._files.shelves.store
        if store is None:
            raise NotImplementedHere("this gateway has no store of models")
        return store

    def _source(self, name: str) -> Kept:
        """A model with all that config.yaml gives it. Raises ModelNotFound, BackendError."""
        offered = self._files.find(name)
        adapters = tuple(Path(lora.path) for lora in offered.loras)
        return structs.replace(offered.kept, projector=offered.projector, draft=offered.draft, adapters=adapters)

    def _folder_has(self, name: str) -> Kept | None:
        """A model of the models folder."""
        try:
            return self._files.here(name)
        except ValueError:
            return None

    def _check_free(self, name: str) -> None:
        """Raises Conflict where a file of the models folder would hide the model."""
        if self._files.hides(name):
            raise Conflict(f"{name!r} is the name of a file of the models folder", param="model")


class _Left(Exception):
    """Nobody waits for the work any more."""


def _parsed(name: str, *, param: str = "model") -> Name:
    parsed = names.parse(name)
    if parsed is None:
        raise InvalidRequest("invalid model name", param=param)
    return parsed
