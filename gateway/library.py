"""Which models there are, and how that changes: one backend fetches, makes, copies and removes them.

Long work on one model runs once, however many ask for it, and stops when the last of them has left. After every change
the catalog is asked again: the very next request finds the model, and what was loaded of an older one is retired.
What comes from config.yaml or belongs to another backend is never changed here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager

from msgspec import structs

from adapters.ollama.names import key, parse
from backends.base import Backend, Manages, Pulls, Tell
from canonical.errors import Busy, Conflict, InvalidRequest, ModelNotFound, NotImplementedHere, shutting_down
from canonical.progress import Progress
from canonical.recipe import Recipe
from gateway.catalog import Catalog
from gateway.router import Directory, Route, known
from gateway.settings import Settled
from gateway.watched import Watched

_FROM_A_HOST = re.compile(r"https?://|[^/]*[.:][^/]*/")
NAME_LIMIT = 2048
"""Characters of a name; an address is one, too."""
RUNNING = 32
"""Pulls and pushes at once: each has a handful of connections and files, and a process may have a thousand of these open."""
MAKING = 16
"""Models that may be made at once, copies among them."""
_PATHS = ("/", ".", "~", "\\", "file:/")
"""How a name begins that means a file of this machine: whoever can reach a port could look for files by it."""


class Library:
    """One gateway's."""

    def __init__(self, settled: Settled, catalog: Catalog) -> None:
        self._backends = settled.backends
        self._catalog = catalog
        self._home = settled.config.library or _first(settled.backends)
        """Name of the backend that it is all about; empty: none can."""
        self._shared: dict[tuple[str, str, str, bool], Watched[None]] = {}
        self._made = 0
        """How many are being made now."""
        self._closed = False
        self._settling: set[asyncio.Task[Directory]] = set()

    async def lacks(self, name: str) -> bool:
        """Whether a model has to be fetched before it can be loaded: it stands in config.yaml alone, or nobody knows it yet.

        Raises:
            ModelNotFound: nobody knows it, and its name does not begin with the host that it could come from: names of models
                are not looked up at strangers' for a slip of the pen.
        """
        _check(name)
        route = await self._route(name)
        if route is not None:
            return route.info is None and isinstance(self._backends[route.backend], Pulls)
        if not _FROM_A_HOST.match(name):
            raise ModelNotFound(f"model '{name}' not found", param="model")
        return True

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Fetch a model, or what is new of it; what config.yaml or another backend serves is there already.

        Who asks for one that is being fetched watches with the others. Closing leaves it to them; the last to leave
        stops it, and the next pull goes on from there.

        Raises:
            InvalidRequest, ModelNotFound, NotImplementedHere, StorageFailed, BackendError.
        """
        _check(name)
        route = await self._route(name)
        home = self._home
        if route is not None and (route.entry is not None or route.backend != home):
            if route.info is not None or not isinstance(self._backends[route.backend], Pulls):
                return
            home, name = route.backend, route.name  # it stands in config.yaml, and is not there yet
        backend = self._backends.get(home)
        if not isinstance(backend, Pulls):
            raise NotImplementedHere("no backend of config.yaml can fetch models")
        shared = self._share("pull", home, name, insecure, lambda: backend.pull(name, insecure=insecure))
        async with aclosing(shared) as steps:
            async for step in steps:
                yield step

    async def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a model to the registry that its name begins with; shared and stopped as in ``pull``."""
        _check(name)
        backend = self._manager()
        shared = self._share("push", self._home, name, insecure, lambda: backend.push(name, insecure=insecure))
        async with aclosing(shared) as steps:
            async for step in steps:
                yield step

    async def create(self, name: str, recipe: Recipe) -> AsyncGenerator[Progress, None]:
        """Make a model; the one that it is made from is fetched where nobody has it."""
        _check(name)
        backend = self._manager()
        await self._check_free(name)
        if recipe.source:
            _check(recipe.source)
            route = await self._route(recipe.source)
            if route is None:
                async with aclosing(self.pull(recipe.source)) as steps:
                    async for step in steps:
                        yield step
                route = await self._route(recipe.source)
            if route is not None:
                recipe = structs.replace(recipe, source=self._ours(route, recipe.source))
        with self._making():
            try:
                async with aclosing(backend.create(name, recipe)) as steps:
                    async for step in steps:
                        yield step
            finally:
                await self._settle(self._home)

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name. Raises ModelNotFound, InvalidRequest, Conflict."""
        route = await self._route(source)
        for which, name, there in (("source", source, route is not None), ("destination", destination, False)):
            if not _is_name(name, there):
                raise InvalidRequest(f'{which} "{name}" is invalid', param=which)
        backend = self._manager()
        await self._check_free(destination)
        try:
            with self._making():
                await backend.copy(source if route is None else self._ours(route, source), destination)
        except ModelNotFound as error:
            raise ModelNotFound(f'model "{source}" not found', param="source") from error
        finally:
            await self._settle(self._home)

    async def delete(self, name: str) -> None:
        """Remove a model; an answer that it is giving goes on to its end. Raises ModelNotFound, InvalidRequest, Conflict."""
        route = await self._route(name)
        if not _is_name(name, route is not None):
            raise InvalidRequest(f'name "{name}" is invalid', param="model")
        backend = self._manager()
        if route is not None and route.entry is not None:
            raise Conflict(f"model '{name}' comes from config.yaml: take it out there", param="model")
        try:
            await backend.delete(name if route is None else self._ours(route, name))
        except ModelNotFound as error:
            raise ModelNotFound(f"model '{name}' not found", param="model") from error
        finally:
            await self._settle(self._home)

    async def has_blob(self, digest: str) -> bool:
        """Whether ``sha256:<64 hex>`` is there."""
        backend = self._backends.get(self._home)
        return isinstance(backend, Manages) and await backend.has_blob(digest)

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes], *, size: int = 0) -> bool:
        """Keep a blob under its digest; False where it was there already."""
        return await self._manager().put_blob(digest, pieces, size=size)

    async def close(self) -> None:
        """Stop what runs, and begin nothing more: the process ends. The next pull goes on from there."""
        self._closed = True
        for watched in self._shared.values():
            watched.stop()
        for ended in [watched.ended() for watched in self._shared.values()]:
            await ended
        if self._settling:
            await asyncio.wait(self._settling)

    async def _share(
        self, kind: str, home: str, name: str, insecure: bool, start: Callable[[], AsyncGenerator[Progress, None]]
    ) -> AsyncGenerator[Progress, None]:
        if self._closed:
            raise shutting_down()
        what = (kind, home, key(name), insecure)
        while (watched := self._shared.get(what)) is not None and watched.stopping:
            await watched.ended()

        async def work(tell: Tell) -> None:
            try:
                async with aclosing(start()) as steps:
                    async for step in steps:
                        tell(step)
            finally:
                await self._settle(home)

        if watched is None:
            if len(self._shared) >= RUNNING:
                raise Busy("too many models are being fetched or sent", retry_after=30)
            watched = self._shared[what] = Watched(work)
            watched.then(lambda: self._shared.pop(what))
        progress = watched.watch()
        try:
            async for step in progress:
                yield step
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise shutting_down() from None  # the work was called off, and not who waits for it
            raise
        finally:
            await progress.aclose()

    @contextmanager
    def _making(self) -> Generator[None]:
        if self._made >= MAKING:
            raise Busy("too many models are being made", retry_after=30)
        self._made += 1
        try:
            yield
        finally:
            self._made -= 1

    async def _settle(self, home: str) -> None:
        """Let everybody know of a change, also where whoever made it has left."""
        task = asyncio.ensure_future(self._catalog.renew(home))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        await asyncio.shield(task)

    async def _route(self, name: str) -> Route | None:
        names = await self._catalog.refresh()
        # A model of ours that config.yaml serves under another name has no route by its own.
        return known(name, names) or known(f"{self._home}/{name}", names)

    async def _check_free(self, name: str) -> None:
        """Raises Conflict where a model of that name could never be asked for."""
        route = await self._route(name)
        if route is None or (route.entry is None and route.backend == self._home):
            return
        owner = "config.yaml" if route.entry is not None else f"backend {route.backend!r}"
        raise Conflict(f"'{name}' is the name of a model of {owner}", param="model")

    def _ours(self, route: Route, name: str) -> str:
        """What the backend itself calls the model. Raises Conflict for another's."""
        if route.backend != self._home:
            raise Conflict(f"model '{name}' belongs to backend {route.backend!r}", param="model")
        return route.name

    def _manager(self) -> Manages:
        backend = self._backends.get(self._home)
        if not isinstance(backend, Manages):
            raise NotImplementedHere("no backend of config.yaml can change which models there are")
        return backend


def _first(backends: Mapping[str, Backend]) -> str:
    for ability in (Manages, Pulls):
        for name, backend in backends.items():
            if isinstance(backend, ability):
                return name
    return ""


def _is_name(name: str, there: bool) -> bool:
    """Whether a model may be called so; one that is ``there`` has its name already, be it one of Ollama's or not."""
    return bool(name) and not name.startswith(_PATHS) and (there or parse(name) is not None)


def _check(name: str) -> None:
    """Raises InvalidRequest for what is no model's name on any server."""
    if not name or len(name) > NAME_LIMIT or name.startswith(_PATHS):
        raise InvalidRequest("invalid model name", param="model")
