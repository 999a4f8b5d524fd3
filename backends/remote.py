"""What every backend behind HTTP does alike: it lists models, remembers the list, relays bytes, and has handles for models.

The exchange with the server itself is ``upstream``'s.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from typing import TypeVar

from msgspec import structs

from adapters.relaying import addressed
from backends.abilities import Known
from backends.upstream import Upstream
from canonical.errors import ModelNotFound
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.report import Honours
from canonical.requests import Embed, Generate

H = TypeVar("H", bound="Handle")


class Catalog:
    """What a backend said of its models last: a handle made later knows their abilities."""

    def __init__(self, name: str, fixed: Iterable[str], probed: Known) -> None:
        self._name = name
        self._probed = probed
        self._known = {id: probed.info(ModelInfo(id=id, backend=name)) for id in fixed}
        self.fixed = list(self._known.values())
        """The catalog of the configuration, if it has one."""

    def keep(self, found: list[ModelInfo]) -> list[ModelInfo]:
        """Remember a list, and mark its rows as this backend's."""
        rows = [structs.replace(self._probed.info(info), backend=self._name) for info in found]
        self._known = {info.id: info for info in rows}
        return rows

    def info(self, name: str) -> ModelInfo:
        """The row of a model, or an empty one: only the server knows whether it has it."""
        return self._known.get(name) or self._probed.info(ModelInfo(id=name, backend=self._name))


class RemoteBackend:
    """What the backends behind HTTP do alike: list models, remember the list, relay bytes, close."""

    dialect = ""
    relayed: Collection[str] = ()
    """Paths whose bytes may pass between it and a client of its dialect."""
    streams: frozenset[str] = frozenset()
    """Media types of a streamed answer."""

    def __init__(
        self,
        upstream: Upstream,
        fixed: Iterable[str],
        *,
        listing: str,
        read_list: Callable[[bytes], list[ModelInfo]],
        probed: Known,
    ) -> None:
        self._upstream = upstream
        self._probed = probed
        self.image_links = upstream.image_links
        """Whether the server follows links to images itself."""
        self._catalog = Catalog(upstream.name, fixed, probed)
        self._list = upstream.head("GET", listing)
        self._read_list = read_list
        self._relayed = {path: upstream.head("POST", path) for path in self.relayed}

    async def models(self) -> list[ModelInfo]:
        """The configured catalog, or the server's. Raises BackendError."""
        if self._catalog.fixed:
            return self._catalog.fixed
        return self._catalog.keep(self._read_list(await self._upstream.control(self._list)))

    async def details(self, name: str) -> ModelDetails:
        """The catalog's row, where the API tells no more. Raises ModelNotFound, BackendError."""
        for info in await self.models():
            if info.id == name:
                return ModelDetails(info=info)
        raise ModelNotFound(f"model '{name}' not found", param="model")

    def corrected(self, handle: H) -> H:
        """``handle`` with the honours that its very model was found to have."""
        handle.honours = self._probed.honours(handle.info.id)
        return handle

    def relay(self, path: str, request: Generate | Embed, name: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """The server's own bytes, each piece with their content type."""
        head = self._relayed[path].plus(request.origin.headers)
        streams = self.streams if isinstance(request, Generate) and request.stream else frozenset()
        return self._upstream.relay(head, addressed(request.origin.body, name), streams=streams)

    async def close(self) -> None:
        """Close all connections."""
        await self._upstream.close()


class Handle:
    """A model of a backend behind HTTP: its memory is someone else's, so there is nothing to load or free."""

    slots = 0

    def __init__(self, info: ModelInfo, honours: Honours) -> None:
        self.info = info
        self.honours = honours

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        """Nothing: the connections are the backend's."""
