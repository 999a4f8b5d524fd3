"""Making room on a client's word: models are let go of, here and at servers behind, whoever loaded them.

What runs is not cut: a model goes with the requests that it has, and who asks for it meanwhile waits for its next load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from backends.base import Backend, Frees, Hosts, Warms
from canonical.errors import Busy, GatewayError
from canonical.models import spelling
from gateway.pool import Pool
from gateway.residents import Key, Resident


class Clearing:
    """What may be told to go, and where."""

    def __init__(self, pool: Pool, backends: Mapping[str, Backend], *, patience: float) -> None:
        """``patience``: seconds that running requests may take to end."""
        self._pool = pool
        self._backends = backends
        self._patience = patience
        self.alone = asyncio.Lock()
        """Who is to be alone in memory takes this, so that two do not make room for each other."""

    async def all_but(self, kept: Key | None = None) -> list[Key]:
        """Let go of everything but one model; what went.

        Raises:
            Busy: some requests do not end; what is theirs goes all the same, later.
            BackendError: a server that may have models in its memory could not be asked, or did not let go; all others did.
        """
        here = [resident for resident in self._pool.residents() if not _same(resident.key, kept)]
        failure: GatewayError | None = None
        gone: list[Key] = []
        try:
            gone += await self._closed(here)
        except Busy as error:
            failure = error
        for name, backend in self._backends.items():
            if isinstance(backend, Hosts) and isinstance(backend, Frees):
                try:
                    for row in await backend.others():
                        if not _same((name, row.info.id), kept) and await backend.free(row.info.id):
                            gone.append((name, row.info.id))
                except GatewayError as error:
                    failure = failure or error
        if failure is not None:
            raise failure
        return list(dict.fromkeys(gone))

    async def one(self, key: Key) -> list[Key]:
        """Let go of one model; it, or nothing where it is in nobody's memory. Raises as ``all_but``."""
        here = [resident for resident in self._pool.residents() if resident.key == key]
        gone = await self._closed(here)
        backend = self._backends[key[0]]
        if isinstance(backend, Frees) and await backend.free(key[1]):
            gone.append(key)
        return list(dict.fromkeys(gone))

    async def _closed(self, going: Collection[Resident]) -> list[Key]:
        heavy = {resident.key for resident in going if self._has_memory(resident)}
        handles = {resident.key for resident in going} - heavy
        for key in handles:
            await self._pool.unload(key)  # a handle alone: nobody waits for the answers that come through it
        try:
            async with asyncio.timeout(self._patience):
                gone = await self._pool.clear(heavy)
        except TimeoutError:
            raise Busy(
                f"it is in use, and was not free within {self._patience:g} s; it goes with the requests that it has",
                retry_after=5,
            ) from None
        return [*(key for key in handles if not self._elsewhere(key)), *gone]

    def _has_memory(self, resident: Resident) -> bool:
        return resident.terms.local or (
            isinstance(self._backends[resident.key[0]], Hosts) and not self._elsewhere(resident.key)
        )

    def _elsewhere(self, key: Key) -> bool:
        """Whether what is in memory is told by the server behind alone."""
        return isinstance(self._backends[key[0]], Warms)


def _same(key: Key, other: Key | None) -> bool:
    return other is not None and key[0] == other[0] and spelling(key[1]) == spelling(other[1])
