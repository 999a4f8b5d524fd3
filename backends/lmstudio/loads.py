"""Loading and unloading in LM Studio's memory: what both ways of doing it have in common, and the way by its REST.

That one tells no progress, cannot be stopped and knows few settings; ``package`` is the better one.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Protocol

from msgspec import Struct

from adapters.lmstudio import call
from adapters.lmstudio.call import Listed
from backends.base import Tell
from backends.lmstudio.settings import Loading, for_rest
from backends.upstream import Upstream
from canonical.errors import BackendError, BackendTimeout, OutOfMemory

logger = logging.getLogger("dragoman.lmstudio")

_NO_ROOM = re.compile(
    r"insufficient (system )?(resources|memory)|not enough memory|out of memory|(failed|unable) to allocate",
    re.IGNORECASE,
)


class Owned(Struct, frozen=True):
    """An instance that we loaded. ``reference`` tells it from a later one of the same name; empty: not known."""

    id: str
    embeds: bool
    reference: str = ""


class Loads(Protocol):
    """A way to load."""

    async def load(self, listed: Listed, config: Loading, ttl: float | None, tell: Tell) -> Owned:
        """Load a new instance. Cancelling it stops the load and leaves nothing behind.

        Raises:
            ModelNotFound, OutOfMemory, BackendError.
        """

    async def unload(self, owned: Owned) -> None:
        """Unload that very instance; nothing happens if it has gone. Raises BackendError."""


class NoWay(BackendError):
    """The server does not know this way of loading, or the package for it is missing."""

    code = "no_load"


def for_want_of_memory(text: str) -> OutOfMemory | None:
    """The error of a load that failed because there was no room, as far as its words tell; None: for another reason."""
    return OutOfMemory("LM Studio has not enough memory for the model") if _NO_ROOM.search(text) else None


class RestLoads:
    """By ``/api/v1``. LM Studio's own idle time holds: there is no word for it."""

    def __init__(self, upstream: Upstream, *, limit: float) -> None:
        """``limit``: seconds that a load may take."""
        self._upstream, self._limit = upstream, limit
        self._load = upstream.head("POST", "/api/v1/models/load")
        self._unload = upstream.head("POST", "/api/v1/models/unload")

    async def load(self, listed: Listed, config: Loading, ttl: float | None, tell: Tell) -> Owned:  # noqa: ARG002
        """Load a new instance; cancelling leaves the load to its end, as there is no word to stop it."""
        told, unknown = for_rest(config, embeds=listed.embeds)
        if unknown:
            logger.warning(
                "%s is loaded without %s: only the package lmstudio can say it (pip install 'dragoman[lmstudio]')",
                listed.info.id,
                ", ".join(unknown),
            )
        try:
            async with asyncio.timeout(self._limit):
                id = call.read_load(await self._upstream.ask(self._load, call.write_load(listed.info.id, told)))
        except TimeoutError as error:
            raise BackendTimeout(f"LM Studio has not loaded {listed.info.id!r} within {self._limit:g} s") from error
        except BackendError as error:
            raise for_want_of_memory(error.message) or error from error
        if id is None:
            raise NoWay("this LM Studio loads by its own protocol alone: pip install 'dragoman[lmstudio]'")
        return Owned(id, listed.embeds)

    async def unload(self, owned: Owned) -> None:
        """Unload it by its name."""
        await self._upstream.control(self._unload, call.write_unload(owned.id))
