"""Loaded models: one load that all who want it join, leases that keep a model, a fair queue, idle expiry.

A lease is one running request. At most ``model.slots`` leases are open at once; who comes later waits in the order of
coming, bounded in number and time. A model with no lease for ``keep_alive`` seconds is closed. Nobody outside tests a
state and then changes it: every decision falls between two awaits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from backends.base import Model
from canonical.errors import Busy

Key = tuple[str, str]
"""Backend's name, model's name there."""

T = TypeVar("T")
logger = logging.getLogger("dragoman.pool")


class Resident:
    """A model that is loaded or being loaded, and who uses it."""

    __slots__ = ("closing", "expiry", "keep_alive", "key", "loading", "model", "running", "timer", "waiting", "wanted")

    def __init__(self, key: Key, loading: asyncio.Task[Model], keep_alive: float) -> None:
        self.key = key
        self.loading = loading
        self.model: Model | None = None
        self.wanted = 0
        """Requests that wait for the load."""
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.keep_alive = keep_alive
        self.timer: asyncio.TimerHandle | None = None
        self.expiry: float | None = None
        """Loop time at which it closes, while idle."""
        self.closing = False


class Lease:
    """One request's hold on a model; ``release`` once, however the request ended."""

    __slots__ = ("_pool", "_resident", "model")

    def __init__(self, pool: Pool, resident: Resident, model: Model) -> None:
        self._pool, self._resident, self.model = pool, resident, model

    def release(self) -> None:
        """Give the slot to the next in the queue, or start the idle clock."""
        self._pool._release(self._resident)  # noqa: SLF001  # the two are one mechanism


class Pool:
    """All residents of this process."""

    def __init__(self, *, waiting: int, waiting_time: float) -> None:
        self._waiting = waiting
        self._waiting_time = waiting_time
        self._residents: dict[Key, Resident] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def residents(self) -> list[Resident]:
        """Those whose load is done."""
        return [resident for resident in self._residents.values() if resident.model is not None]

    async def lease(
        self, key: Key, open_model: Callable[[], Awaitable[Model]], *, keep_alive: float, override: float | None = None
    ) -> Lease:
        """Wait for the model and for a slot of it.

        ``keep_alive`` is the model's own; ``override`` is the request's and stays until another request gives one.

        Raises:
            Busy: the queue is full, or the wait was too long.
            GatewayError: what the load raised; every waiter gets it.
        """
        resident = self._residents.get(key)
        if resident is None or resident.model is None or resident.closing:
            resident = await self._loaded(key, open_model, keep_alive)
        if override is not None:
            resident.keep_alive = override
        model = resident.model
        assert model is not None
        if model.slots and (resident.running >= model.slots or resident.waiting):
            await self._queue(resident)
        else:
            resident.running += 1
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = resident.expiry = None
        return Lease(self, resident, model)

    async def _loaded(self, key: Key, open_model: Callable[[], Awaitable[Model]], keep_alive: float) -> Resident:
        while True:
            resident = self._residents.get(key)
            if resident is None:
                resident = Resident(key, asyncio.ensure_future(_run(open_model)), keep_alive)
                resident.loading.add_done_callback(partial(self._settle, resident))
                self._residents[key] = resident
            elif resident.closing:
                await asyncio.wait(self._closing)
                continue
            resident.wanted += 1
            try:
                # Shielded: a waiter that leaves must not abort the load for those who stay.
                await asyncio.shield(resident.loading)
            finally:
                resident.wanted -= 1
            if not resident.closing:
                return resident

    def _settle(self, resident: Resident, loading: asyncio.Task[Model]) -> None:
        if loading.cancelled() or loading.exception() is not None:
            del self._residents[resident.key]
            return
        resident.model = loading.result()
        logger.info("loaded %s/%s", *resident.key)
        if not resident.wanted:
            self._arm(resident)

    async def _queue(self, resident: Resident) -> None:
        if len(resident.waiting) >= self._waiting:
            raise Busy("server busy, please try again.  maximum pending requests exceeded", retry_after=1)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        resident.waiting.append(turn)
        try:
            async with asyncio.timeout(self._waiting_time):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # the slot came in the same instant: pass it on
                self._release(resident)
            elif turn in resident.waiting:
                resident.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Busy(f"no slot came free within {self._waiting_time:g} s", retry_after=5) from error
            raise

    def _release(self, resident: Resident) -> None:
        while resident.waiting:
            turn = resident.waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the slot changes hands; running stays
                return
        resident.running -= 1
        if not resident.running:
            self._arm(resident)

    def _arm(self, resident: Resident) -> None:
        if resident.running or resident.closing:
            return
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = resident.expiry = None
        if resident.keep_alive == 0:
            self._start_closing(resident)
        elif resident.keep_alive > 0:
            loop = asyncio.get_running_loop()
            resident.expiry = loop.time() + resident.keep_alive
            resident.timer = loop.call_at(resident.expiry, self._start_closing, resident)

    def _start_closing(self, resident: Resident) -> None:
        if resident.running or resident.closing or resident.model is None:
            return
        resident.closing = True
        task = asyncio.ensure_future(self._close(resident))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, resident: Resident) -> None:
        try:
            if resident.model is not None:
                await resident.model.close()
                logger.info("unloaded %s/%s", *resident.key)
        finally:
            if self._residents.get(resident.key) is resident:
                del self._residents[resident.key]

    async def unload(self, key: Key) -> None:
        """Close the model now, or when its last request ends; nothing happens when it is not loaded."""
        resident = self._residents.get(key)
        if resident is None or resident.model is None:
            return
        resident.keep_alive = 0
        self._arm(resident)
        if resident.closing:
            await asyncio.wait(self._closing)

    async def close(self) -> None:
        """Close every model, whoever uses it: the process ends."""
        for resident in list(self._residents.values()):
            resident.loading.cancel()
            if resident.timer is not None:
                resident.timer.cancel()
            if not resident.closing:
                resident.running = 0
                self._start_closing(resident)
        if self._closing:
            await asyncio.wait(self._closing)


async def _run(open_model: Callable[[], Awaitable[T]]) -> T:
    return await open_model()
