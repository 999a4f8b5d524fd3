"""What the backends offer, kept fresh beside the requests: a dead backend costs its own models, never the list's time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from backends.base import Backend
from canonical.errors import GatewayError
from canonical.models import ModelInfo
from gateway.config import ModelEntry
from gateway.router import Directory, directory

FRESH = 5.0
"""Seconds for which a backend's list is taken as it is."""
PATIENCE = 2.0
"""Seconds that a reader waits for a list; after that it gets the last one."""

logger = logging.getLogger("dragoman.catalog")


class Catalog:
    """The lists of all backends, each with its age."""

    def __init__(
        self, backends: Mapping[str, Backend], models: Sequence[ModelEntry], *, clock: Callable[[], float]
    ) -> None:
        self._backends = backends
        self._models = models
        self._clock = clock
        self._lists: dict[str, list[ModelInfo]] = {}
        self._asked: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.names: Directory = directory(models, {})

    async def refresh(self, *, force: bool = False) -> Directory:
        """The names as of now, or as last seen where a backend takes too long."""
        now = self._clock()
        for name, backend in self._backends.items():
            if name not in self._running and (force or now - self._asked.get(name, -FRESH) >= FRESH):
                self._asked[name] = now
                task = asyncio.create_task(self._ask(name, backend))
                self._running[name] = task
        if self._running:
            await asyncio.wait(self._running.values(), timeout=PATIENCE)
        return self.names

    async def _ask(self, name: str, backend: Backend) -> None:
        try:
            found = await backend.models()
        except GatewayError as error:
            logger.warning("backend %s cannot list its models: %s", name, error.message)
            found = []
        finally:
            del self._running[name]
        if found != self._lists.get(name):
            self._lists[name] = found
            ordered = {name: self._lists[name] for name in self._backends if name in self._lists}
            self.names = directory(self._models, ordered)

    async def close(self) -> None:
        """Stop asking."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
