"""What the routes talk to: a canonical request in, canonical events out. Routing, leases and the stopwatch meet here."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from functools import partial
from typing import TypeGuard

from msgspec import structs

from backends.base import Backend, Counts, Embeds, Generates, Matches, Model, Reads, Reranks, TellsAll, tell_nobody
from backends.remote import RemoteBackend
from canonical.errors import BackendUnavailable, GatewayError, NotImplementedHere, Unsupported
from canonical.events import Check, Event, Finished, Timings
from canonical.limits import check_generate
from canonical.media import Blob
from canonical.models import OF_TEXT, Capability, LoadedModel, ModelDetails, ModelInfo
from canonical.progress import Progress
from canonical.report import Report
from canonical.requests import (
    Embed,
    Embeddings,
    Generate,
    Ranking,
    Rerank,
    needs,
)
from canonical.seeing import Match, Read, Reading
from gateway.brought import shown, with_own
from gateway.catalog import Catalog
from gateway.fetch import Fetcher
from gateway.in_memory import InMemory
from gateway.judge import judge
from gateway.keeping import rules_of
from gateway.leases import Leases
from gateway.library import Library
from gateway.loads import Loads, retire_older
from gateway.memory import Machine
from gateway.pool import Lease, Pool
from gateway.relay import passed_on, relayer
from gateway.router import Route, check_needs
from gateway.settings import Settled
from gateway.shims import Shimmed, gains, said_by, shimmed, with_shims

_EMBED = frozenset({Capability.EMBED})
_RERANK = frozenset({Capability.RERANK})
_REASONING = frozenset({Capability.REASONING})

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
        self._backends = settled.backends
        machine = Machine()
        pool = self._pool = Pool(rules_of(config, machine), measure=machine.free)
        catalog = self._catalog = Catalog(
            settled.backends, settled.models, clock=time.monotonic, changed=partial(retire_older, pool)
        )
        self.library = Library(settled, catalog)
        self.leases = Leases(pool, catalog, settled.backends, config)
        self._in_memory = InMemory(pool, catalog, settled.backends)
        self.loads = Loads(self.leases, pool, settled.backends, self._in_memory, patience=config.limits.waiting_time)
        self._pinned = [entry.id for entry in settled.models if entry.pinned]
        self.relays = any(entry.relay for entry in settled.models)
        """Whether the answers of some model may be relayed."""
        self._fetcher = fetcher or Fetcher(config.images)
        self.paints_here = config.jobs.running > 0 and not config.jobs.queue
        """Whether pictures are made by this process; if not, others have what that takes."""
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
        routes = await self.leases.candidates(request.model, required)
        unable: Unsupported | None = None
        for candidate in routes:
            lease: Lease | None = None
            begun = False
            try:
                if Capability.VISION in required:
                    request = await self._fetched(request, candidate, images)
                lease = await self.leases.lease(
                    candidate, request.keep_alive, request.load, tenant=request.tenant, tell=far
                )
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
            routes = await self.leases.candidates(request.model, needs(request))
        else:
            routes = [await self.leases.route(request.model, _EMBED)]
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
        route = await self.leases.route(request.model, _EMBED)
        lease = await self.leases.lease(route, request.keep_alive, request.load)
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
        route = await self.leases.route(request.model, _RERANK)
        lease = await self.leases.lease(route)
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
        route = (await self.leases.candidates(request.model, required))[0]
        if Capability.VISION in required:
            request = await self._fetched(request, route)
        lease = await self.leases.lease(route, request.keep_alive, request.load, tenant=request.tenant)
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
        async with self.leases.held(request.model, Capability.MATCH) as model:
            if not isinstance(model, Matches):
                raise Unsupported(f'"{request.model}" does not support match', param="model")
            return await model.match(request)

    async def read(self, request: Read) -> Reading:
        """The text in the picture."""
        async with self.leases.held(request.model, Capability.READ) as model:
            if not isinstance(model, Reads):
                raise Unsupported(f'"{request.model}" does not support read', param="model")
            return await model.read(request)

    def backend(self, route: Route) -> Backend:
        """Where a route leads."""
        return self._backends[route.backend]

    async def models(self, able: Collection[Capability] = OF_TEXT) -> tuple[ModelInfo, ...]:
        """The catalog: one row an id, of those that do something of ``able`` or may do anything."""
        rows = (await self._catalog.refresh()).rows
        return tuple(row for row in rows if not row.capabilities or not row.capabilities.isdisjoint(able))

    async def model(self, name: str) -> ModelInfo:
        """One row of the catalog, by any of its names. Raises ModelNotFound."""
        await self._catalog.refresh()
        route = await self.leases.route(name)
        return structs.replace(route.info or ModelInfo(id=route.id), id=route.id, backend=route.backend)

    async def details(self, name: str, *, verbose: bool = False) -> ModelDetails:
        """More on one model; ``verbose``: with the long lists, where the backend has them. Raises ModelNotFound."""
        route = await self.leases.route(name)
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

    async def unreached(self) -> dict[str, GatewayError | None]:
        """Each backend, and why it could not tell its models when it was last asked; None: it did."""
        await self._catalog.refresh()
        return {name: self._catalog.failures.get(name) for name in self._backends}

    def stranger(self) -> GatewayError | None:
        """Why a backend has never told its models yet: an unknown name may be one of them. None: all have told."""
        return self._catalog.stranger

    def begin(self) -> None:
        """Start to load what is pinned."""
        self.loads.begin(self._pinned)

    async def close(self) -> None:
        """Unload everything and let go of the backends."""
        self.loads.close()
        await self.library.close()
        await self._catalog.close()
        await self._pool.close()
        for backend in self._backends.values():
            await backend.close()

    async def linked(self, links: Sequence[str], *, param: str) -> dict[str, Blob]:
        """The images behind links. Raises InvalidRequest, Busy: as the fetcher's ``follow``."""
        images: dict[str, Blob] = {}
        await self._fetcher.fetch(links, images, param)
        return images

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
