"""Loaded models: who wants one gets a lease, which keeps it; loads are joined and watched.

``scheduling`` decides, this acts: it runs the loads and closings that are ordered, wakes who waits, keeps the one timer,
and reports. Every decision falls between two awaits.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection
from typing import cast

from msgspec import Struct

from backends.base import Model, Need, Tell, tell_nobody
from canonical.loading import merged
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.residents import Abort, Close, Key, Open, Order, Phase, Resident, Rules, Terms, Wake, Weigh
from gateway.room import Free
from gateway.scheduling import Schedule
from gateway.turns import Stand, Turn

LATEST = 3600.0
"""Seconds that the timer is set for at most: event loops do not take any number."""

logger = logging.getLogger("dragoman.pool")


NOTHING = Need()


async def _weightless(_: LoadOptions) -> Need:
    return NOTHING


class Source(Struct, frozen=True, kw_only=True, eq=False):
    """A model that can be leased: what it is called, how it is kept, how it is weighed and loaded."""

    key: Key
    open: Callable[[LoadOptions, Tell], Awaitable[Model]]
    need: Callable[[LoadOptions], Awaitable[Need]] = _weightless
    terms: Terms = Terms()


class Lease(Turn):
    """One request's hold on a model; ``release`` once, however the request ended."""

    __slots__ = ("_pool", "tell", "waiter")

    def __init__(self, pool: Pool, options: LoadOptions, keep_alive: float | None, tenant: str, tell: Tell) -> None:
        super().__init__(options, keep_alive, tenant)
        self._pool = pool
        self.tell = tell
        self.waiter: asyncio.Future[None] | None = None

    def release(self) -> None:
        """Give the slot to whose turn it is, or start the idle clock."""
        self._pool._release(self)  # noqa: SLF001  # the two are one mechanism


class _Work(Struct, eq=False):
    """A weighing, a load or a closing under way."""

    task: asyncio.Task[Need | Model | None]
    end: asyncio.Future[None]
    """Done when its end has been reported."""


class Pool:
    """All residents of this process."""

    def __init__(self, rules: Rules | None = None, *, measure: Callable[[bool], Free] | None = None) -> None:
        """``measure`` tells what memory is free, graphics processors' too if its argument is True."""
        self._schedule = Schedule(rules or Rules())
        self._measure = measure
        self._work: dict[Resident, _Work] = {}
        self._awaited: dict[Resident, list[asyncio.Future[None]]] = {}
        """Models for whose end somebody waits."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def residents(self) -> list[Resident]:
        """Those that are ready or being loaded."""
        schedule = self._schedule
        return [
            resident
            for resident in (*schedule.residents.values(), *schedule.retired)
            if resident.phase in {Phase.LOADING, Phase.READY}
        ]

    async def lease(
        self,
        source: Source,
        *,
        options: LoadOptions = AS_CONFIGURED,
        keep_alive: float | None = None,
        tenant: str = "",
        tell: Tell = tell_nobody,
    ) -> Lease:
        """Wait for the model and for a slot of it.

        ``keep_alive`` is the request's wish and stays until another request gives one. Tenants wait in turn. ``tell`` learns
        how far the load is, while this waits for one.

        Raises:
            Busy: the queue is full, or the wait for others was too long; a load takes the time it takes.
            OutOfMemory: the model can never fit.
            InvalidRequest: the model may not be loaded as ``options`` want it.
            GatewayError: what the load raised; every waiter gets it.
        """
        schedule = self._schedule
        if options != AS_CONFIGURED:
            if source.terms.options == "ignore":
                options = AS_CONFIGURED
            elif source.terms.local and not schedule.does_for(source.key, options):
                # Before anybody else's model is closed for it. What may change meanwhile is decided when it has its turn.
                schedule.check(source.key, await source.need(merged(source.terms.load, options)))
        lease = Lease(self, options, keep_alive, tenant, tell)
        loop = asyncio.get_running_loop()
        self._look_for_who_waits()
        schedule.ask(lease, source.key, source.terms, source, loop.time())
        if schedule.orders or schedule.next < self._timer_at:
            self._act(loop)
        if lease.stand is Stand.HOLDS:
            return lease
        return await self._turn(lease, loop)

    async def _turn(self, lease: Lease, loop: asyncio.AbstractEventLoop) -> Lease:
        if lease.error is None:
            lease.waiter = loop.create_future()
            try:
                await lease.waiter
            except BaseException:
                self._given_up(lease)
                raise
        if lease.error is not None:
            raise lease.error
        return lease

    def _given_up(self, lease: Lease) -> None:
        if lease.stand is Stand.HOLDS:  # the slot came in the same instant: pass it on
            self._release(lease)
        elif lease.stand is Stand.WAITS:
            loop = asyncio.get_running_loop()
            self._look_for_who_waits()
            self._schedule.leave(lease, loop.time())
            self._act(loop)

    async def unload(self, key: Key) -> None:
        """Close the model now, or when its last request ends; back when it is closed, or at once while requests run."""
        loop = asyncio.get_running_loop()
        resident = self._schedule.residents.get(key)
        self._look_for_who_waits()
        self._schedule.unload(key, loop.time())
        self._act(loop)
        if resident is not None and resident.phase in {Phase.CLOSING, Phase.ABORTING}:
            await asyncio.wait((self._work[resident].end,))

    async def clear(self, keys: Collection[Key]) -> list[Key]:
        """Close these models, each when the requests that it has are done; back when all are closed: which were in memory.

        Who comes for one of them meanwhile waits for its next load.
        """
        loop = asyncio.get_running_loop()
        self._look_for_who_waits()
        going = self._schedule.dismiss(keys, loop.time())
        gone = [loop.create_future() for _ in going]
        for resident, end in zip(going, gone, strict=True):
            waiting = [other for other in self._awaited.get(resident, ()) if not other.done()]
            self._awaited[resident] = [*waiting, end]
        self._act(loop)
        await asyncio.gather(*gone)
        return [resident.key for resident in going]

    def retire(self, key: Key) -> None:
        """The model's files are gone or replaced: what runs ends with the old one, who comes or waits gets the new one."""
        loop = asyncio.get_running_loop()
        self._look_for_who_waits()
        self._schedule.retire(key, loop.time())
        self._act(loop)

    async def close(self) -> None:
        """Close every model, whoever uses it, and refuse all who wait: the process ends."""
        loop = asyncio.get_running_loop()
        self._schedule.close(loop.time())
        self._act(loop)
        while self._work:
            await asyncio.wait([work.end for work in self._work.values()])
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self, lease: Lease) -> None:
        loop = asyncio.get_running_loop()
        schedule = self._schedule
        self._look_for_who_waits()
        schedule.release(lease, loop.time())
        if schedule.orders or schedule.next < self._timer_at:
            self._act(loop)

    def _look_for_who_waits(self) -> None:
        """Measure before a decision only where somebody stands in line for room: no other asks for what is free."""
        if self._schedule.crowded:
            self._look()

    def _look(self, need: Need = NOTHING) -> None:
        """Measure what memory is free, for those who want some."""
        if self._measure is not None:
            graphics = need.vram or any(resident.need.vram for resident in self._schedule.residents.values())
            self._schedule.free = self._measure(bool(graphics))

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        loop = asyncio.get_running_loop()
        self._look_for_who_waits()
        self._schedule.tick(loop.time())
        self._act(loop)

    def _act(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry out what is ordered, and set the timer."""
        schedule = self._schedule
        orders, schedule.orders = schedule.orders, []
        for order in orders:
            match order:
                case Wake(turn):
                    assert isinstance(turn, Lease)
                    if turn.waiter is not None and not turn.waiter.done():
                        turn.waiter.set_result(None)
                case Weigh(resident):
                    self._start(order, _source(resident).need(resident.options))
                case Open(resident):
                    self._start(order, self._load(resident))
                case Close(_, model):
                    self._start(order, model.close())
                case Abort(resident):
                    self._work[resident].task.cancel()
        if schedule.next < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = min(schedule.next, loop.time() + LATEST)
            self._timer = loop.call_at(self._timer_at, self._tick)

    def _start(self, order: Order, work: Awaitable[Need | Model | None]) -> None:
        """Begin work on a resident, which has no other under way."""
        task = asyncio.ensure_future(work)
        self._work[order.resident] = _Work(task, task.get_loop().create_future())
        # Not at the end of the work itself: what is cancelled before it has begun never gets there.
        task.add_done_callback(lambda _: self._ended(order))

    async def _load(self, resident: Resident) -> Model:
        def tell(progress: Progress) -> None:
            if resident.phase is Phase.LOADING:
                resident.progress = progress
                for turn in resident.turns():
                    assert isinstance(turn, Lease)
                    turn.tell(progress)

        return await _source(resident).open(resident.options, tell)

    def _ended(self, order: Order) -> None:
        """Report the end of some work."""
        resident = order.resident
        work = self._work.pop(resident)
        loop = work.end.get_loop()
        now = loop.time()
        schedule = self._schedule
        error = asyncio.CancelledError() if work.task.cancelled() else work.task.exception()
        name = "/".join(resident.key)
        if isinstance(order, Close):
            if error is None:
                logger.info("unloaded %s", name)
            else:  # whoever waits for the model is not helped by the reason
                logger.error("closing %s failed", name, exc_info=error)
            self._look()
            schedule.closed(resident, now)
        elif error is not None:
            logger.info("loading %s failed: %s", name, error or "stopped")
            self._look()
            schedule.failed(resident, error, now)
        elif isinstance(order, Weigh):
            need = cast("Need", work.task.result())
            self._look(need)
            schedule.weighed(resident, need, now)
        else:
            logger.info("loaded %s", name)
            self._look()
            schedule.loaded(resident, cast("Model", work.task.result()), now)
        self._act(loop)
        work.end.set_result(None)
        if isinstance(order, Close) or error is not None:
            for end in self._awaited.pop(resident, ()):
                if not end.done():
                    end.set_result(None)


def _source(resident: Resident) -> Source:
    assert isinstance(resident.source, Source)
    return resident.source
