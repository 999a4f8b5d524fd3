"""Loaded models: one load that all who want it join, leases that keep a model, a fair queue, idle expiry.

A lease is one running request. At most ``model.slots`` leases are open at once; who comes later waits in the order of
coming, bounded in number and time. A model with no lease for ``keep_alive`` seconds is closed. Nobody outside tests a
state and then changes it: every decision falls between two awaits.

    loading ── ready ── closing ── gone
       └────────────────── └─ somebody waits: loading again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from backends.base import Model
from canonical.errors import Busy

Key = tuple[str, str]
"""Backend's name, model's name there."""
Open = Callable[[], Awaitable[Model]]

logger = logging.getLogger("dragoman.pool")


class Resident:
    """A model that is loaded, being loaded or being closed, who uses it and who waits for it."""

    __slots__ = (
        "closing", "expiry", "keep_alive", "key", "loading", "model", "open", "own", "running", "timer", "waiting",
    )  # fmt: skip

    def __init__(self, key: Key, open_model: Open, keep_alive: float) -> None:
        self.key = key
        self.open = open_model
        self.own = keep_alive
        """Seconds it stays by its configuration, each time it is loaded."""
        self.keep_alive = keep_alive
        """Seconds it stays now: the last that a request wished."""
        self.loading: asyncio.Task[None] | None = None
        self.model: Model | None = None
        """Set while it is ready."""
        self.closing: asyncio.Task[None] | None = None
        self.running = 0
        """Open leases."""
        self.waiting: deque[asyncio.Future[Model]] = deque()
        """Turns, in the order of coming. One that is done got a slot or was given up."""
        self.timer: asyncio.TimerHandle | None = None
        self.expiry: float | None = None
        """Loop time at which it closes, while idle."""


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
        self._limit = waiting
        self._waiting_time = waiting_time
        self._residents: dict[Key, Resident] = {}
        self._closed = False

    def residents(self) -> list[Resident]:
        """Those that are ready."""
        return [resident for resident in self._residents.values() if resident.model is not None]

    async def lease(self, key: Key, open_model: Open, *, keep_alive: float, override: float | None = None) -> Lease:
        """Wait for the model and for a slot of it.

        ``keep_alive`` is the model's own; ``override`` is the request's and stays until another request gives one.

        Raises:
            Busy: the queue is full, or the wait for a slot was too long; a load takes the time it takes.
            GatewayError: what the load raised; every waiter gets it.
        """
        if self._closed:
            raise _ending()
        resident = self._residents.get(key)
        if resident is None:
            resident = self._residents[key] = Resident(key, open_model, keep_alive)
            self._load(resident)
        model = resident.model
        if model is None or resident.waiting or not _free(resident, model):
            model = await self._turn(resident)
        else:
            resident.running += 1
        if override is not None:
            resident.keep_alive = override
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = resident.expiry = None
        return Lease(self, resident, model)

    async def _turn(self, resident: Resident) -> Model:
        # How many a model that is not ready can serve at once is not known yet: the load's end bounds its queue.
        if resident.model is not None and len(resident.waiting) >= self._limit:
            raise _full()
        turn: asyncio.Future[Model] = asyncio.get_running_loop().create_future()
        resident.waiting.append(turn)
        try:
            while not turn.done() and (change := resident.loading or resident.closing) is not None:
                await asyncio.wait((turn, change), return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(self._waiting_time):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                if turn.exception() is None:  # the slot came in the same instant: pass it on
                    self._release(resident)
            else:
                turn.cancel()
                with contextlib.suppress(ValueError):  # a release has passed it over already
                    resident.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Busy(f"no slot came free within {self._waiting_time:g} s", retry_after=5) from error
            raise

    def _load(self, resident: Resident) -> None:
        resident.keep_alive = resident.own
        resident.loading = asyncio.ensure_future(self._run_load(resident))

    async def _run_load(self, resident: Resident) -> None:
        try:
            model = await resident.open()
        except BaseException as error:
            self._forget(resident)
            logger.info("loading %s/%s failed: %s", *resident.key, error)
            failure = _ending() if isinstance(error, asyncio.CancelledError) else error
            _refuse(resident.waiting, failure)
            if isinstance(error, Exception):
                return  # it has reached everybody whom it concerns
            raise
        finally:
            resident.loading = None
        logger.info("loaded %s/%s", *resident.key)
        resident.model = model
        if self._closed:
            self._start_closing(resident)
            return
        self._grant(resident, model)
        while len(resident.waiting) > self._limit:
            _refuse_one(resident.waiting.pop(), _full())
        self._arm(resident)

    def _grant(self, resident: Resident, model: Model) -> None:
        """Give free slots to those who wait longest."""
        while resident.waiting and _free(resident, model):
            turn = resident.waiting.popleft()
            if not turn.done():
                resident.running += 1
                turn.set_result(model)

    def _release(self, resident: Resident) -> None:
        assert resident.running > 0
        resident.running -= 1
        if resident.model is not None:
            self._grant(resident, resident.model)
        self._arm(resident)

    def _arm(self, resident: Resident) -> None:
        """Start the idle clock of a model that nobody uses."""
        if resident.running or resident.model is None:
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
        if resident.timer is not None:
            resident.timer.cancel()
            resident.timer = resident.expiry = None
        model, resident.model = resident.model, None
        if model is not None:
            resident.closing = asyncio.ensure_future(self._run_close(resident, model))

    async def _run_close(self, resident: Resident, model: Model) -> None:
        try:
            await model.close()
            logger.info("unloaded %s/%s", *resident.key)
        except Exception:  # whoever waits for the model is not helped by the reason
            logger.exception("closing %s/%s failed", *resident.key)
        finally:
            resident.closing = None
            if self._closed:
                _refuse(resident.waiting, _ending())
            if any(not turn.done() for turn in resident.waiting):
                self._load(resident)
            else:
                self._forget(resident)

    def _forget(self, resident: Resident) -> None:
        if self._residents.get(resident.key) is resident:
            del self._residents[resident.key]

    async def unload(self, key: Key) -> None:
        """Close the model now, or when its last request ends; nothing happens when it is not there."""
        resident = self._residents.get(key)
        if resident is None:
            return
        resident.keep_alive = 0
        self._arm(resident)
        if resident.closing is not None:
            await asyncio.wait((resident.closing,))

    def retire(self, key: Key) -> None:
        """The model's files are gone or replaced: it is closed once its running requests end."""
        resident = self._residents.get(key)
        if resident is not None:
            resident.keep_alive = 0
            self._arm(resident)

    async def close(self) -> None:
        """Close every model, whoever uses it, and refuse all who wait: the process ends."""
        self._closed = True
        for resident in list(self._residents.values()):
            _refuse(resident.waiting, _ending())
            if resident.loading is not None:
                resident.loading.cancel()
            self._start_closing(resident)
        while ends := [end for each in self._residents.values() if (end := each.loading or each.closing) is not None]:
            await asyncio.wait(ends)


def _free(resident: Resident, model: Model) -> bool:
    return not model.slots or resident.running < model.slots


def _full() -> Busy:
    return Busy("server busy, please try again.  maximum pending requests exceeded", retry_after=1)


def _ending() -> Busy:
    return Busy("the gateway is shutting down", retry_after=5)


def _refuse(waiting: deque[asyncio.Future[Model]], error: BaseException) -> None:
    while waiting:
        _refuse_one(waiting.popleft(), error)


def _refuse_one(turn: asyncio.Future[Model], error: BaseException) -> None:
    if not turn.done():
        turn.set_exception(error)
