"""What is in memory, for the lists that tell of it: here, and at servers behind whose users load models there, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from msgspec import structs

from backends.base import Backend, Hosts, Warms
from canonical.errors import BackendTimeout, GatewayError
from canonical.models import LoadedModel, ModelInfo, spelling
from gateway.catalog import Catalog
from gateway.pool import Pool
from gateway.residents import Key
from gateway.router import Route

PATIENCE = 1.0
"""Seconds; a server that is down must not keep anybody from what is here."""
_JITTER = 100_000_000
"""Nanoseconds by which two clocks seem to differ when they are read one after the other."""


class InMemory:
    """The rows of all models, under their public names."""

    def __init__(self, pool: Pool, catalog: Catalog, backends: Mapping[str, Backend]) -> None:
        self._pool = pool
        self._catalog = catalog
        self._backends = backends
        self._began = 0

    def opened(self, *, elsewhere: bool) -> list[LoadedModel]:
        """The models that hold memory of this machine now, or are about to.

        ``elsewhere``: also those that were opened and whose memory is another server's.
        """
        public = self._public()
        rows: list[LoadedModel] = []
        now, zero = asyncio.get_running_loop().time(), self._zero()
        for resident in self._pool.residents():
            model, need = resident.model, resident.need
            backend = self._backends[resident.key[0]]
            hosted = isinstance(backend, Hosts) and not isinstance(backend, Warms)  # which loads and frees by itself
            if not resident.terms.local and (model is None or not (model.slots or elsewhere)) and not hosted:
                continue
            route = public.get(_spelled(resident.key))
            if model is not None:
                row = model.loaded()
                if row.absent:
                    continue
            else:
                info = (route.info if route is not None else None) or ModelInfo(id=resident.key[1])
                row = LoadedModel(info=info, context_length=info.context_length)
            idle_until = resident.expiry if resident.expiry is not None else now + max(resident.keep_alive, 0)
            forever = resident.keep_alive < 0 or resident.terms.pinned
            rows.append(
                structs.replace(
                    _named(row, route, resident.key[0]),
                    size=need.ram + need.vram or row.size,
                    size_vram=need.vram or row.size_vram,
                    slots=0 if model is None else model.slots,
                    batch=0 if model is None or model.honours.load is None else model.honours.load.batch or 0,
                    loading=model is None,
                    expires=None if forever else zero + int(idle_until * 1e9),
                )
            )
        return rows

    async def everywhere(self) -> list[LoadedModel]:
        """Those that hold memory here, and what servers behind have in theirs, whoever loaded it; as far as they answer."""
        return (await self._everywhere())[0]

    async def ready(self) -> list[LoadedModel]:
        """``everywhere`` without what is at a server that does not answer; and handles on models of those that cannot tell.

        Raises:
            BackendError: there are none, and some server does not answer.
        """
        found, failures = await self._everywhere()
        rows = [row for row in found if row.info.backend not in failures]
        known = {row.info.id for row in rows}
        for row in self.opened(elsewhere=True):
            backend = self._backends[row.info.backend]
            if not isinstance(backend, Hosts) and row.info.id not in known:
                rows.append(row)
        if failures and not rows:
            raise next(iter(failures.values()))
        return rows

    def name(self, key: Key) -> str:
        """What clients call a model."""
        route = self._public().get(_spelled(key))
        return key[1] if route is None else route.id

    async def _everywhere(self) -> tuple[list[LoadedModel], dict[str, GatewayError]]:
        """Also why some servers do not answer."""
        public = self._public()
        others, failures = await _others(self._backends)
        routes = [(row, public.get(_spelled((row.info.backend, row.info.id)))) for row in others]
        return [
            *self.opened(elsewhere=False),
            *(_named(row, route, row.info.backend) for row, route in routes),
        ], failures

    def _public(self) -> dict[Key, Route]:
        """A model's backend and name there -> the first route to it: its id is how clients call it."""
        return {_spelled((route.backend, route.name)): route for route in reversed(self._catalog.names.by_id.values())}

    def _zero(self) -> int:
        """When the loop's clock stood at 0, in epoch nanoseconds: the same each time, unless the system's clock was set."""
        found = time.time_ns() - int(asyncio.get_running_loop().time() * 1e9)
        if abs(found - self._began) > _JITTER:
            self._began = found
        return self._began


def _spelled(key: Key) -> Key:
    """Servers may list a model by another spelling than the configuration has."""
    return key[0], spelling(key[1])


def _named(row: LoadedModel, route: Route | None, backend: str) -> LoadedModel:
    id = row.info.id if route is None else route.id
    return structs.replace(row, info=structs.replace(row.info, id=id, backend=backend))


async def _others(backends: Mapping[str, Backend]) -> tuple[list[LoadedModel], dict[str, GatewayError]]:
    """What servers behind have loaded beside what was opened through here, and why some do not tell."""
    hosts = {name: backend for name, backend in backends.items() if isinstance(backend, Hosts)}
    found = dict(zip(hosts, await asyncio.gather(*map(_ask, hosts.values())), strict=True))
    rows = [row for answer in found.values() if not isinstance(answer, GatewayError) for row in answer]
    return rows, {name: answer for name, answer in found.items() if isinstance(answer, GatewayError)}


async def _ask(host: Hosts) -> list[LoadedModel] | GatewayError:
    try:
        async with asyncio.timeout(PATIENCE):
            return await host.others()
    except GatewayError as error:
        return error
    except TimeoutError:
        return BackendTimeout(f"a server did not tell its models within {PATIENCE:g} s")
