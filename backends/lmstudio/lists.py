"""What an LM Studio has on its disk and in its memory: asked of the newest of its three lists that it knows."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from adapters.lmstudio import call
from adapters.lmstudio.call import Listed, Resident
from backends.upstream import Upstream
from canonical.errors import NotFound


class Found(Struct, frozen=True):
    """What a name means: the model, and the instance that answers to it, if one is loaded."""

    listed: Listed
    resident: Resident | None


class Lists:
    """The lists of one server. Which of them it has is told by what it answers, as unknown routes answer 200."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._ways: tuple[tuple[str, Callable[[bytes], list[Listed] | None]], ...] = (
            ("/api/v1/models", call.read_models),
            ("/api/v0/models", call.read_beta_models),
            ("/v1/models", call.read_plain_models),
        )

    async def ask(self) -> list[Listed]:
        """Every model. Raises BackendError."""
        for path, read in self._ways:
            try:
                found = read(await self._upstream.control(self._upstream.head("GET", path)))
            except NotFound:
                continue  # what other servers say of a route that they have not
            if found is not None:
                return found
        return []


def find(rows: list[Listed], name: str) -> Found | None:
    """What ``name`` means: an instance's own name first, then a model's."""
    for row in rows:
        for resident in row.residents or ():
            if resident.id == name:
                return Found(row, resident)
    for row in rows:
        if name == row.info.id or name in row.names:
            widest = max(row.residents or (), key=lambda one: one.context, default=None)
            return Found(row, widest)
    return None
