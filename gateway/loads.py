"""Models that are loaded and let go on somebody's word, where others come and go with the requests for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping

from backends.base import Backend, Tell, Warms, tell_nobody
from canonical.errors import BackendError, GatewayError
from canonical.models import ModelInfo, spelling
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.clearing import Clearing
from gateway.in_memory import InMemory
from gateway.leases import Leases
from gateway.pool import Pool
from gateway.router import Route
from gateway.watched import Watched

logger = logging.getLogger("dragoman.engine")


class Loads:
    """One gateway's. A ``keep_alive`` is in seconds; None: as configured."""

    def __init__(
        self, leases: Leases, pool: Pool, backends: Mapping[str, Backend], in_memory: InMemory, *, patience: float
    ) -> None:
        """``patience``: seconds that running requests may take to end."""
        self._leases = leases
        self._pool = pool
        self._backends = backends
        self._in_memory = in_memory
        self._clearing = Clearing(pool, backends, patience=patience)
        self._beginning: set[asyncio.Task[None]] = set()

    async def load(self, name: str, keep_alive: float | None = None, options: LoadOptions = AS_CONFIGURED) -> None:
        """Load the model and start its idle clock; one that is loaded and does for ``options`` stays as it is."""
        await self._load(await self._leases.route(name), keep_alive, options)

    async def loading(
        self, name: str, keep_alive: float | None = None, options: LoadOptions = AS_CONFIGURED
    ) -> AsyncGenerator[Progress, None]:
        """``load``, watched: how far it is, until it has ended. Closing the generator leaves the load to the others."""
        route = await self._leases.route(name)

        async def work(tell: Tell) -> None:
            await self._load(route, keep_alive, options, tell)

        progress = Watched(work).watch()
        try:
            async for step in progress:
                yield step
        finally:
            await progress.aclose()

    async def load_alone(self, name: str, keep_alive: float | None = None) -> None:
        """``load``, once whatever else is in memory has gone, here and at servers behind. Two such loads take turns.

        Raises:
            Busy: others are in use, and do not end.
            GatewayError: as ``load``; a model that there is not costs no other its place.
        """
        route = await self._leases.route(name)
        await self._backends[route.backend].details(route.name)
        async with self._clearing.alone:
            try:
                await self._clearing.all_but((route.backend, route.name))
            except BackendError as error:  # of a server that may well be another one
                logger.warning("models cannot be unloaded: %s", error.message)
            await self._load(route, keep_alive, AS_CONFIGURED)

    async def unload(self, name: str) -> None:
        """Free the model's memory once its running requests end; back when it is free, or at once while some run."""
        route = await self._leases.route(name)
        await self._pool.unload((route.backend, route.name))
        await self._warm(route, 0, AS_CONFIGURED)

    async def free(self, name: str = "") -> list[str]:
        """Free the memory of one model, or of all, here and at servers behind, whoever loaded them; those that went.

        Raises as ``Clearing``, ModelNotFound.
        """
        if name:
            route = await self._leases.route(name)
            gone = await self._clearing.one((route.backend, route.name))
        else:
            gone = await self._clearing.all_but()
        return [self._in_memory.name(key) for key in gone]

    def begin(self, names: Iterable[str]) -> None:
        """Start to load these; what cannot be loaded is in the log."""

        async def load(name: str) -> None:
            with contextlib.suppress(GatewayError):  # the pool has told
                await self.load(name)

        self._beginning = {asyncio.create_task(load(name)) for name in names}

    def close(self) -> None:
        """What ``begin`` started is no longer wanted."""
        for task in self._beginning:
            task.cancel()

    async def _load(
        self, route: Route, keep_alive: float | None, options: LoadOptions, tell: Tell = tell_nobody
    ) -> None:
        (await self._leases.lease(route, keep_alive, options, tell=tell)).release()
        await self._warm(route, keep_alive, options)

    async def _warm(self, route: Route, keep_alive: float | None, options: LoadOptions) -> None:
        """What is opened here for a server that loads models by itself is a handle alone."""
        backend = self._backends[route.backend]
        if isinstance(backend, Warms):
            await backend.warm(route.name, keep_alive, options)


def retire_older(pool: Pool, backend: str, name: str, info: ModelInfo | None) -> None:
    """A backend lists a model otherwise than before, or no longer (None): what was loaded of it goes with what it runs.

    Who comes now gets the new one.
    """
    for resident in pool.residents():
        model = resident.model
        home, called = resident.key  # config.yaml may call it otherwise than its backend does
        same = home == backend and spelling(called) == spelling(name)
        if same and (info is None or model is None or model.info.digest != info.digest):
            pool.retire((home, called))
