"""From a name to a loaded model: its route, and a lease on what the pool has for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from backends.base import Backend, Model, Tell, tell_nobody
from canonical.durations import seconds
from canonical.errors import GatewayError
from canonical.models import Capability
from canonical.own import over
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.catalog import Catalog
from gateway.keeping import source_of
from gateway.pool import Lease, Pool, Source
from gateway.router import Directory, Route, candidates, check_needs, default, resolve
from gateway.settings import Config

T = TypeVar("T")


class Leases:
    """One gateway's."""

    def __init__(self, pool: Pool, catalog: Catalog, backends: Mapping[str, Backend], config: Config) -> None:
        self._pool = pool
        self._catalog = catalog
        self._backends = backends
        self._defaults = config.defaults
        self._keep_alive = seconds(config.keep_alive)
        self._sources: dict[str, Source] = {}

    async def route(self, name: str, required: frozenset[Capability] = frozenset()) -> Route:
        """Where the model of this name is; no name: the default for what is required. Raises as ``resolve``."""
        return await self._found(lambda names: resolve(name, required, names, self._defaults))

    async def candidates(self, name: str, required: frozenset[Capability]) -> list[Route]:
        """``route``, and behind it those of its fallbacks."""
        return await self._found(lambda names: candidates(name, required, names, self._defaults))

    def usual(self, required: frozenset[Capability]) -> str:
        """The configured model for a request that names none and needs this; empty: there is none."""
        return default(required, self._catalog.names, self._defaults)

    async def lease(
        self,
        route: Route,
        keep_alive: float | None = None,
        options: LoadOptions = AS_CONFIGURED,
        *,
        tenant: str = "",
        tell: Tell = tell_nobody,
    ) -> Lease:
        """The model, loaded; who takes it releases it. ``keep_alive``: seconds, None as configured. Raises as the pool."""
        if route.entry is not None:
            options = over(options, route.entry.own.load)
        source = self._sources.get(route.id)
        if source is None or source.key != (route.backend, route.name):
            source = self._sources[route.id] = source_of(route, self._backends[route.backend], self._keep_alive)
        return await self._pool.lease(source, options=options, keep_alive=keep_alive, tenant=tenant, tell=tell)

    @contextlib.asynccontextmanager
    async def held(self, name: str, ability: Capability) -> AsyncIterator[Model]:
        """A loaded model that has the ability, for as long as the context lasts; no name: its default."""
        required = frozenset({ability})
        route = await self.route(name, required)
        lease = await self.lease(route)
        try:
            check_needs(name or route.id, required, lease.model.info)
            yield lease.model
        finally:
            lease.release()

    async def _found(self, find: Callable[[Directory], T]) -> T:
        """What ``find`` finds among the names; what fails is looked for once more when the catalog is fresh."""
        names = self._catalog.names
        try:
            return find(names)
        except GatewayError:
            fresh = await self._catalog.refresh()
            if fresh is names:
                raise
            return find(fresh)
