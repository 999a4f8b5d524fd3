"""Where models are kept beside the folder of GGUF files: our own store, and what other programs have, read in place."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.ollama import names
from adapters.ollama.go import is_jinja
from backends.store import OllamaFolder, Store
from backends.store.kept import Brings, Kept
from backends.store.studio import StudioFolder, parts_of
from canonical.errors import BackendError, StorageFailed, Unsupported

logger = logging.getLogger("dragoman.store")


class Shelves:
    """The store, which comes first, and the folders that are only read, in their order."""

    def __init__(self, store: Store | None, also_read: Sequence[Path]) -> None:
        self.store = store
        self._store = Brings(store) if store is not None else None
        self._tidied = store is None
        self._told: set[str] = set()
        """Manifests whose trouble stands in the log."""
        self._others = [(path, Brings(OllamaFolder(path)), StudioFolder(path)) for path in also_read]

    def tidy(self) -> None:
        """Once: remove what killed processes left in the store."""
        if self._tidied or self.store is None:
            return
        self._tidied = True
        try:
            self.store.sweep()
        except StorageFailed as error:
            logger.warning("%s: what was left in it stays", error.message)

    def every(self) -> Iterator[Kept]:
        """All models; one name may come several times, and the first is meant."""
        for shelf in self._shelves():
            if isinstance(shelf, StudioFolder):
                yield from shelf.models()
                continue
            for stored in shelf.folder.models():
                try:
                    kept = shelf.kept(stored)
                except BackendError as error:
                    if stored.digest not in self._told:
                        self._told.add(stored.digest)
                        logger.warning("the model %s cannot be offered: %s", stored.id, error.message)
                    continue
                if kept is not None:
                    yield kept

    def find(self, name: str) -> Kept | None:
        """Raises BackendError for a model that cannot be read."""
        parsed = names.parse(name)
        for shelf in self._shelves():
            if isinstance(shelf, StudioFolder):
                kept = shelf.find(name)
            else:
                stored = shelf.folder.find(parsed) if parsed is not None else None
                kept = shelf.kept(stored) if stored is not None else None
            if kept is not None:
                return kept
        return None

    def openable(self, kept: Kept) -> tuple[Path, ...]:
        """The model's parts under names by which llama.cpp finds the others from the first. Raises Unsupported, StorageFailed."""
        parts = kept.parts
        if len(parts) == 1 or parts_of(parts[0]) == parts:
            return parts
        if self.store is None:
            raise Unsupported(f"{kept.id!r} is split, and without a store nothing can put it together", param="model")
        return self.store.assembled(kept.digest, parts)

    def _shelves(self) -> Iterator[Brings | StudioFolder]:
        if self._store is not None:
            yield self._store
        for path, ollama, studio in self._others:
            yield ollama if (path / "manifests").is_dir() else studio


def jinja(kept: Kept) -> str:
    """The model's TEMPLATE in Jinja; empty where it has none, or one that cannot be said so: then the file's own renders."""
    template = kept.brought.template
    if not template or is_jinja(template):
        return template
    from adapters.ollama.go.jinja import jinja_of
    from adapters.ollama.go.parse import BadTemplate

    try:
        return jinja_of(template)
    except BadTemplate as error:
        logger.warning("the TEMPLATE of %s is left out for its file's own: %s", kept.id, error.message)
        return ""
