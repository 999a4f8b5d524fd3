"""What the routes talk to: a canonical request in, canonical events out. Routing, leases and the stopwatch meet here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from typing import TypeGuard, TypeVar

from msgspec import structs

from backends.base import Counts, Embeds, Generates, Matches, Model, Reads, Reranks, TellsAll, Warms, tell_nobody
from backends.remote import RemoteBackend
from canonical.durations import seconds
from canonical.errors import BackendError, BackendUnavailable, GatewayError, NotImplementedHere, Unsupported
from canonical.events import Check, Event, Finished, Timings
from canonical.limits import check_generate
from canonical.media import Blob
from canonical.models import OF_TEXT, Capability, LoadedModel, ModelDetails, ModelInfo, spelling
from canonical.own import over
from canonical.progress import Progress
from canonical.report import Report
from canonical.requests import (
    AS_CONFIGURED,
    Embed,
    Embeddings,
    Generate,
    LoadOptions,
    Ranking,
    Rerank,
    needs,
)
from canonical.seeing import Match, Read, Reading
from canonical.translation import Translate, Translation
from gateway.brought import shown, with_own
from gateway.catalog import Catalog
from gateway.clearing import Clearing
from gateway.fetch import Fetcher
from gateway.in_memory import InMemory
from gateway.judge import judge
from gateway.keeping import rules_of, source_of
from gateway.library import Library
from gateway.memory import Machine
from gateway.pool import Lease, Pool, Source
from gateway.relay import passed_on, relayer
from gateway.router import Directory, Route, candidates, check_needs, default, resolve
from gateway.settings import Settled
from gateway.shims import Shimmed, gains, said_by, shimmed, with_shims
from gateway.translating import translated
from gateway.watched import Watched

logger = logging.getLogger("dragoman.engine")

_EMBED = frozenset({Capability.EMBED})
_RERANK = frozenset({Capability.RERANK})
_REASONING = frozenset({Capability.REASONING})
T = TypeVar("T")

Tell = Callable[[Report], None]
"""Takes what becomes of a request's fields."""


def _nobody(_: Report) -> None: ...


class Engine:
    """One gateway's models, behind names."""

    def __init__(
        self, settled: Settled, *, clock: Callable[[], int] = time.monotonic_ns, fetcher: Fetcher | None = None
    ) -> None:
        """``fetcher`` follows links to images; without one, as the configuration says."""
        config = settled.config
        self._clock = clock
        self._defaults = config.defaults
        self._keep_alive = seconds(config.keep_alive)
        self._backends = settled.backends
        self._catalog = Catalog(settled.backends, settled.models, clock=time.monotonic, changed=self._changed)
        self.library = Library(settled, self._catalog)
        machine = Machine()
        self._pool = Pool(rules_of(config, machine), measure=machine.free)
        self._in_memory = InMemory(self._pool, self._catalog, self._backends)
        self._clearing = Clearing(self._pool, self._backends, patience=config.limits.waiting_time)
        self._sources: dict[str, Source] = {}
        self._pinned = [entry.id for entry in settled.models if entry.pinned]
        self._beginning: set[asyncio.Task[None]] = set()
        self.relays = any(entry.relay for entry in settled.models)
        """Whether the answers of some model may be relayed."""
        self._fetcher = fetcher or Fetcher(config.images)
        self.characters = config.limits.translation
        """Of one request for a translation."""

    async def generate(
        self,
        request: Generate,
        *,
        strict: bool = False,
        tell: Tell = _nobody,
        images: dict[str, Blob] | None = None,
        far: Callable[[Progress], None] = tell_nobody,
    ) -> AsyncGenerator[Sequence[Event], None]:
        """The answer's events, checked, as many at once as the backend gave.

        Closing the generator stops the generation and frees its slot. A model that cannot do what is asked, or whose
        backend cannot be reached, is replaced by its fallbacks, as long as nothing has been yielded. ``tell`` learns what
        becomes of the request's fields, before the first event; with ``strict``, or a strict model, one that would be
        dropped is refused. ``images`` keeps what was behind links, for requests that have the same ones.
        ``far`` learns how far a load is that the request waits for.

        Raises:
            GatewayError: whatever goes wrong; Unsupported also for what ``strict`` forbids.
        """
        arrived = self._clock()
        check_generate(request)
        required = needs(request)
        if request.origin.dialect == "ollama" and request.think not in {None, "off"}:
            # Its clients expect a refusal and try again without; OpenAI's expect the wish to be ignored.
            required |= _REASONING
        routes = await self._candidates(request.model, required)
        unable: Unsupported | None = None
        for candidate in routes:
            lease: Lease | None = None
            begun = False
            try:
                if Capability.VISION in required:
                    request = await self._fetched(request, candidate, images)
                lease = await self._lease(candidate, request.keep_alive, request.load, request.tenant, far)
                leased = first = self._clock()
                try:
                    asked = with_own(request, candidate.entry, lease.model)
                    shim = shimmed(asked, candidate.entry, lease.model)
                    stream = _generator(candidate, lease.model, asked, required, shim)
                    told = request if shim is None else said_by(request, shim)
                    tell(judge(told, candidate, lease.model, strict=strict))
                except Unsupported as error:
                    unable = unable or error
                    if candidate is routes[-1]:
                        raise unable from None
                    continue
                check = Check()
                try:
                    async for batch in stream:
                        if not batch:
                            continue
                        for event in batch:
                            check.feed(event)
                        if type(batch[-1]) is Finished:
                            batch = [*batch[:-1], self._timed(batch[-1], arrived, leased, first if begun else None)]
                        elif not begun:
                            first = self._clock()
                        begun = True
                        yield batch
                    check.finish()
                    return
                finally:
                    await stream.aclose()
            except BackendUnavailable:
                if begun or candidate is routes[-1]:
                    raise
            finally:
                if lease is not None:
                    lease.release()

    async def relay(
        self, request: Generate | Embed, path: str, *, tell: Tell | None = None
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """The content type and the bytes of the answer, as the model's own server sends them, if it is to be relayed.

        Yields nothing where it is to be translated: ``generate`` and ``embed`` do that. ``path`` is that of the request's
        dialect. Fields are not looked at: all count as honoured.

        Raises:
            GatewayError: whatever goes wrong; a fallback takes over as in ``generate``.
        """
        if isinstance(request, Generate):
            check_generate(request)
            routes = await self._candidates(request.model, needs(request))
        else:
            routes = [await self._route(request.model, _EMBED)]
        for route in routes:
            backend = relayer(route, self._backends[route.backend], request, path)
            if backend is None or (isinstance(request, Generate) and self._must_fetch(request, route)):
                return  # bytes with links that are ours to follow cannot stay as they are
            if tell is not None:
                tell(passed_on(request))
            pieces = backend.relay(path, request, route.name)
            begun = False
            try:
                async for piece in pieces:
                    begun = True
                    yield piece
            except BackendUnavailable:
                if begun or route is routes[-1]:
                    raise
            else:
                return
            finally:
                await pieces.aclose()

    async def embed(self, request: Embed, *, strict: bool = False, tell: Tell = _nobody) -> Embeddings:
        """Vectors for the inputs. Without inputs the model is only loaded. ``strict`` and ``tell`` as in ``generate``."""
        arrived = self._clock()
        route = await self._route(request.model, _EMBED)
        lease = await self._lease(route, request.keep_alive, request.load)
        try:
            leased = self._clock()
            name = request.model or route.id
            check_needs(name, _EMBED, lease.model.info)
            if not isinstance(lease.model, Embeds):
                raise Unsupported(f'"{name}" does not support embed', param="model")
            tell(judge(request, route, lease.model, strict=strict))
            if request.inputs:
                answer = await lease.model.embed(request)
            else:
                answer = Embeddings(model=name, vectors=())
        finally:
            lease.release()
        return structs.replace(answer, model=name, total=self._clock() - arrived, load=leased - arrived)

    async def rerank(self, request: Rerank, *, strict: bool = False, tell: Tell = _nobody) -> Ranking:
        """The documents by their scores, the best first. ``strict`` and ``tell`` as in ``generate``."""
        route = await self._route(request.model, _RERANK)
        lease = await self._lease(route, None)
        try:
            name = request.model or route.id
            check_needs(name, _RERANK, lease.model.info)
            if not isinstance(lease.model, Reranks):
                raise Unsupported(f'"{name}" does not support rerank', param="model")
            tell(judge(request, route, lease.model, strict=strict))
            answer = await lease.model.rerank(request)
        finally:
            lease.release()
        ranked = sorted(answer.ranked, key=lambda one: (-one.score, one.index))[: request.top_n]
        return structs.replace(answer, model=name, ranked=tuple(ranked))

    async def count(self, request: Generate) -> int:
        """The exact number of tokens of a prompt.

        Raises:
            NotImplementedHere: the model's backend cannot count; a guess would be worse than none.
        """
        check_generate(request)
        required = needs(request)
        route = (await self._candidates(request.model, required))[0]
        if Capability.VISION in required:
            request = await self._fetched(request, route)
        lease = await self._lease(route, request.keep_alive, request.load, request.tenant)
        try:
            name = request.model or route.id
            check_needs(name, required - gains(route.entry), lease.model.info)
            if not isinstance(lease.model, Counts):
                raise NotImplementedHere(f'the backend of "{name}" cannot count tokens')
            request = with_own(request, route.entry, lease.model)
            shim = shimmed(request, route.entry, lease.model)
            return await lease.model.count(request if shim is None else shim.request)
        finally:
            lease.release()

    async def match(self, request: Match) -> Sequence[float]:
        """How well each label fits the picture: shares that are 1 together."""
        async with self.leased(request.model, Capability.MATCH) as model:
            if not isinstance(model, Matches):
                raise Unsupported(f'"{request.model}" does not support match', param="model")
            return await model.match(request)

    async def read(self, request: Read) -> Reading:
        """The text in the picture."""
        async with self.leased(request.model, Capability.READ) as model:
            if not isinstance(model, Reads):
                raise Unsupported(f'"{request.model}" does not support read', param="model")
            return await model.read(request)

    async def translate(self, request: Translate) -> Translation:
        """Each text in another language, by one model or two. Raises as ``translating``."""
        return await translated(self, request)

    @contextlib.asynccontextmanager
    async def leased(
        self, name: str, ability: Capability, tell: Callable[[Progress], None] = tell_nobody
    ) -> AsyncIterator[Model]:
        """A loaded model that has the ability, for as long as the context lasts; empty: its default."""
        required = frozenset({ability})
        route = await self._route(name, required)
        lease = await self._lease(route, None, tell=tell)
        try:
            check_needs(name or route.id, required, lease.model.info)
            yield lease.model
        finally:
            lease.release()

    async def load(self, name: str, keep_alive: float | None = None, options: LoadOptions = AS_CONFIGURED) -> None:
        """Load the model and start its idle clock; one that is loaded and does for ``options`` stays as it is."""
        await self._load(await self._route(name, frozenset()), keep_alive, options)

    async def loading(
        self, name: str, keep_alive: float | None = None, options: LoadOptions = AS_CONFIGURED
    ) -> AsyncGenerator[Progress, None]:
        """``load``, watched: how far it is, until it has ended. Closing the generator leaves the load to the others."""
        route = await self._route(name, frozenset())

        async def work(tell: Callable[[Progress], None]) -> None:
            await self._load(route, keep_alive, options, tell)

        progress = Watched(work).watch()
        try:
            async for step in progress:
                yield step
        finally:
            await progress.aclose()

    async def unload(self, name: str) -> None:
        """Free the model's memory once its running requests end; back when it is free, or at once while some run."""
        route = await self._route(name, frozenset())
        await self._pool.unload((route.backend, route.name))
        await self._warm(route, 0, AS_CONFIGURED)

    async def load_alone(self, name: str, keep_alive: float | None = None) -> None:
        """``load``, once whatever else is in memory has gone, here and at servers behind. Two such loads take turns.

        Raises:
            Busy: others are in use, and do not end.
            GatewayError: as ``load``; a model that there is not costs no other its place.
        """
        route = await self._route(name, frozenset())
        await self._backends[route.backend].details(route.name)
        async with self._clearing.alone:
            try:
                await self._clearing.all_but((route.backend, route.name))
            except BackendError as error:  # of a server that may well be another one
                logger.warning("models cannot be unloaded: %s", error.message)
            await self._load(route, keep_alive, AS_CONFIGURED)

    async def free(self, name: str = "") -> list[str]:
        """Free the memory of one model, or of all, here and at servers behind, whoever loaded them; those that went.

        Raises as ``Clearing``, ModelNotFound.
        """
        if name:
            route = await self._route(name, frozenset())
            gone = await self._clearing.one((route.backend, route.name))
        else:
            gone = await self._clearing.all_but()
        return [self._in_memory.name(key) for key in gone]

    async def _load(
        self,
        route: Route,
        keep_alive: float | None,
        options: LoadOptions,
        tell: Callable[[Progress], None] = tell_nobody,
    ) -> None:
        (await self._lease(route, keep_alive, options, tell=tell)).release()
        await self._warm(route, keep_alive, options)

    async def _warm(self, route: Route, keep_alive: float | None, options: LoadOptions) -> None:
        """What is opened here for a server that loads models by itself is a handle alone."""
        backend = self._backends[route.backend]
        if isinstance(backend, Warms):
            await backend.warm(route.name, keep_alive, options)

    def retire(self, backend: str, name: str) -> None:
        """A backend's model was removed or replaced: what runs ends with the old one, who comes now gets the new one."""
        self._pool.retire((backend, name))

    def _changed(self, backend: str, name: str, info: ModelInfo | None) -> None:
        """A backend lists a model otherwise than before, or no longer."""
        for resident in self._pool.residents():
            model = resident.model
            home, called = resident.key  # config.yaml may call it otherwise than its backend does
            same = home == backend and spelling(called) == spelling(name)
            if same and (info is None or model is None or model.info.digest != info.digest):
                self.retire(home, called)

    async def models(self, able: Collection[Capability] = OF_TEXT) -> tuple[ModelInfo, ...]:
        """The catalog: one row an id, of those that do something of ``able`` or may do anything."""
        rows = (await self._catalog.refresh()).rows
        return tuple(row for row in rows if not row.capabilities or not row.capabilities.isdisjoint(able))

    async def model(self, name: str) -> ModelInfo:
        """One row of the catalog, by any of its names. Raises ModelNotFound."""
        await self._catalog.refresh()
        route = await self._route(name, frozenset())
        return structs.replace(route.info or ModelInfo(id=route.id), id=route.id, backend=route.backend)

    async def details(self, name: str, *, verbose: bool = False) -> ModelDetails:
        """More on one model; ``verbose``: with the long lists, where the backend has them. Raises ModelNotFound."""
        route = await self._route(name, frozenset())
        backend = self._backends[route.backend]
        tell = backend.all_details if verbose and isinstance(backend, TellsAll) else backend.details
        details = await tell(route.name)
        info = structs.replace(with_shims(details.info, route.entry), id=route.id, backend=route.backend)
        return structs.replace(shown(details, route.entry), info=info)

    def loaded(self, *, elsewhere: bool = False) -> list[LoadedModel]:
        """The models that hold memory of this machine now, or are about to.

        ``elsewhere``: also those that were opened and whose memory is another server's.
        """
        return self._in_memory.opened(elsewhere=elsewhere)

    async def residents(self) -> list[LoadedModel]:
        """``loaded``, and what servers behind have in their memory, whoever loaded it."""
        return await self._in_memory.everywhere()

    async def ready(self) -> list[LoadedModel]:
        """``residents``, and what was opened at servers that do not tell of their memory.

        Raises:
            BackendError: there are none, and some server could not be asked for its own.
        """
        return await self._in_memory.ready()

    def usual(self, required: frozenset[Capability]) -> str:
        """The configured model for a request that names none and needs this; empty: there is none."""
        return default(required, self._catalog.names, self._defaults)

    async def unreached(self) -> dict[str, GatewayError | None]:
        """Each backend, and why it could not tell its models when it was last asked; None: it did."""
        await self._catalog.refresh()
        return {name: self._catalog.failures.get(name) for name in self._backends}

    def stranger(self) -> GatewayError | None:
        """Why a backend has never told its models yet: an unknown name may be one of them. None: all have told."""
        return self._catalog.stranger

    def begin(self) -> None:
        """Start to load what is pinned; what cannot be loaded is in the log."""

        async def load(name: str) -> None:
            with contextlib.suppress(GatewayError):  # the pool has told
                await self.load(name)

        self._beginning = {asyncio.create_task(load(name)) for name in self._pinned}

    async def close(self) -> None:
        """Unload everything and let go of the backends."""
        for task in self._beginning:
            task.cancel()
        await self.library.close()
        await self._catalog.close()
        await self._pool.close()
        for backend in self._backends.values():
            await backend.close()

    async def _route(self, name: str, required: frozenset[Capability]) -> Route:
        return await self._found(lambda names: resolve(name, required, names, self._defaults))

    async def _candidates(self, name: str, required: frozenset[Capability]) -> list[Route]:
        return await self._found(lambda names: candidates(name, required, names, self._defaults))

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

    async def _lease(
        self,
        route: Route,
        keep_alive: float | None,
        options: LoadOptions = AS_CONFIGURED,
        tenant: str = "",
        tell: Callable[[Progress], None] = tell_nobody,
    ) -> Lease:
        if route.entry is not None:
            options = over(options, route.entry.own.load)
        source = self._sources.get(route.id)
        if source is None or source.key != (route.backend, route.name):
            source = self._sources[route.id] = source_of(route, self._backends[route.backend], self._keep_alive)
        return await self._pool.lease(source, options=options, keep_alive=keep_alive, tenant=tenant, tell=tell)

    async def _fetched(self, request: Generate, route: Route, images: dict[str, Blob] | None = None) -> Generate:
        """``request`` with the images instead of the links to them, where following these is up to us."""
        return await self._fetcher.follow(request, images) if self._must_fetch(request, route) else request

    def _must_fetch(self, request: Generate, route: Route) -> bool:
        """Whether there are links to images that the server behind ``route`` does not follow itself.

        Raises Unsupported for one that nobody may follow.
        """
        backend = self._backends[route.backend]
        return bool(self._fetcher.links(request)) and not (isinstance(backend, RemoteBackend) and backend.image_links)

    def _timed(self, event: Finished, arrived: int, leased: int, first: int | None) -> Finished:
        """Fill in what the backend did not measure; of an answer that came whole only the total is known."""
        now = self._clock()
        told = event.timings or Timings()
        measured = Timings(
            total=now - arrived,
            load=told.load or leased - arrived,
            prompt=first - leased if told.prompt is None and first is not None else told.prompt,
            eval=now - first if told.eval is None and first is not None else told.eval,
        )
        return Finished(event.reason, event.usage, measured, event.stop_sequence)


def _generator(
    route: Route, model: Model, request: Generate, required: frozenset[Capability], shim: Shimmed | None
) -> AsyncGenerator[Sequence[Event], None]:
    name = request.model or route.id
    check_needs(name, required - gains(route.entry), model.info)
    if not _generates(model):
        verb = "chat" if request.prompt is None else "generate"
        raise Unsupported(f'"{name}" does not support {verb}', param="model")
    return model.generate(request) if shim is None else shim.read(model.generate(shim.request))


def _generates(model: Model) -> TypeGuard[Generates]:
    return issubclass(type(model), Generates)  # remembered by class, unlike isinstance with a protocol: that takes 5 us
