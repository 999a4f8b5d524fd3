"""Models in the memory of servers behind: LM Studio's user loads some there, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from backends.base import Backend, Hosts
from canonical.errors import GatewayError
from canonical.models import LoadedModel

PATIENCE = 1.0
"""Seconds; a server that is down must not keep anybody from what is here."""


async def loaded_elsewhere(backends: Iterable[Backend]) -> list[LoadedModel]:
    """What servers behind have loaded beside what was opened through here, as far as they answer."""
    found = await asyncio.gather(*(_ask(backend) for backend in backends if isinstance(backend, Hosts)))
    return [row for rows in found for row in rows]


async def _ask(host: Hosts) -> list[LoadedModel]:
    try:
        async with asyncio.timeout(PATIENCE):
            return await host.others()
    except (GatewayError, TimeoutError):
        return []
