"""What the backends offer, kept fresh beside the requests.

A dead backend costs its own rows, never the list's time: one that was slow once is not waited for again until it has
answered, and then it is back in the list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from backends.base import Backend
from canonical.errors import GatewayError
from canonical.models import ModelInfo
from gateway.router import Directory, directory
from gateway.settings import ModelEntry

FRESH = 5.0
"""Seconds for which a backend's list is taken as it is."""
PATIENCE = 2.0
"""Seconds that a reader waits for a list; after that it gets the last one."""

logger = logging.getLogger("dragoman.catalog")


class Catalog:
    """The lists of all backends, each with its age."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        models: Sequence[ModelEntry],
        *,
        clock: Callable[[], float],
        changed: Callable[[str, str, ModelInfo | None], None] = lambda _backend, _name, _info: None,
    ) -> None:
        """``changed`` learns of a model that is not the same as before, or (None) gone."""
        self._changed = changed
        self._backends = backends
        self._models = models
        self._clock = clock
        self._lists: dict[str, list[ModelInfo]] = {}
        self._asked: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.failures: dict[str, GatewayError] = {}
        """Backends whose last answer was a failure, and which; their last list still says which names are theirs."""
        self._slow: set[str] = set()
        """Backends that nobody waits for."""
        self.names: Directory = directory(models, {})

    async def refresh(self, *, force: bool = False) -> Directory:
        """The names as of now, or as last seen where a backend takes too long."""
        now = self._clock()
        for name in self._backends:
            if name not in self._running and (force or now - self._asked.get(name, -FRESH) >= FRESH):
                self._start(name)
        awaited = {task: name for name, task in self._running.items() if name not in self._slow}
        if awaited:
            _, late = await asyncio.wait(awaited, timeout=PATIENCE)
            self._slow.update(awaited[task] for task in late)
        return self.names

    async def renew(self, name: str) -> Directory:
        """The names once backend ``name``, whose models have just changed, has told them again; or as last seen."""
        before = self._running.get(name)
        if before is not None:  # it may have been asked in front of the change
            await asyncio.wait((before,), timeout=PATIENCE)
        if name not in self._running:
            self._start(name)
        await asyncio.wait((self._running[name],), timeout=PATIENCE)
        return self.names

    def _start(self, name: str) -> None:
        self._asked[name] = self._clock()
        self._running[name] = asyncio.create_task(self._ask(name, self._backends[name]))

    async def _ask(self, name: str, backend: Backend) -> None:
        try:
            found = await backend.models()
        except GatewayError as error:
            if name not in self.failures:
                logger.warning("backend %s cannot list its models: %s", name, error.message)
            self._tell(name, error)
        except Exception:  # one backend's defect must not cost the list
            logger.exception("backend %s cannot list its models", name)
            self._tell(name, GatewayError("internal error"))
        else:
            self._slow.discard(name)
            self._tell(name, found)
        finally:
            del self._running[name]

    def _tell(self, name: str, found: list[ModelInfo] | GatewayError) -> None:
        """Note an answer, or a failure."""
        if isinstance(found, GatewayError):
            first = name not in self.failures
            self.failures[name] = found
            if not first:
                return
        elif name in self.failures or found != self._lists.get(name):
            self.failures.pop(name, None)
            before, self._lists[name] = self._lists.get(name, []), found
            now = {info.id: info for info in found}
            for known in before:
                info = now.get(known.id)
                if info is None or info.digest != known.digest:
                    self._changed(name, known.id, info)
        else:
            return
        ordered = {backend: self._lists[backend] for backend in self._backends if backend in self._lists}
        self.names = directory(self._models, ordered, silent=self.failures.keys())

    @property
    def stranger(self) -> GatewayError | None:
        """Why a backend has never told its models; None: all have, or were not asked yet."""
        return next((error for name, error in self.failures.items() if name not in self._lists), None)

    async def close(self) -> None:
        """Stop asking."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
