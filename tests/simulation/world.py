"""A machine with models and clients around the real pool, which notices every broken promise.

Nothing here knows how the pool decides. What a promise is stands where it is checked: when a model opens or closes, when a
request gets a slot, after every callback, and whenever nothing more can happen before the clock moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import traceback
from typing import Any

from backends.base import Need, Tell
from canonical.errors import BackendError, GatewayError, ModelNotFound, OutOfMemory
from canonical.loading import suffices
from canonical.models import LoadedModel, ModelInfo
from canonical.progress import Progress
from canonical.report import Honours
from canonical.requests import LoadOptions
from gateway import scheduling
from gateway.pool import Lease, Pool, Source
from gateway.residents import Phase, Resident
from gateway.room import Free
from gateway.scheduling import PATIENCE
from gateway.turns import Stand
from tests.simulation.loop import Loop
from tests.simulation.plan import Act, Kind, Plan

CONTEXT = 4096
NEAR = 1e-6


class Broken(Exception):
    """A promise is broken."""


class Copy:
    """One model in memory."""

    def __init__(self, world: World, kind: Kind, generation: int, load: LoadOptions, ram: int) -> None:
        self.world, self.kind, self.generation, self.ram = world, kind, generation, ram
        self.info = ModelInfo(id=kind.name)
        self.honours = Honours(load=load)
        self.slots = kind.slots
        self.holders: set[int] = set()
        self.closed = False

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        world = self.world
        world.tell(f"{self.kind.name} closes")
        world.check(not self.closed, f"{self.kind.name} is closed twice")
        world.check(not self.holders or world.ended, f"{self.kind.name} is closed under {sorted(self.holders)}")
        self.closed = True
        try:
            await asyncio.sleep(self.kind.close)
        finally:
            world.give(self)
        world.tell(f"{self.kind.name} is closed")


class World:
    """One run of a plan."""

    def __init__(self, plan: Plan, order: int = 0) -> None:
        self.plan = plan
        self.loop = Loop(random.Random(plan.seed * 31 + order), self.step, self.advance)
        self.pool = Pool(plan.rules, measure=None if plan.outside is None else self.measure)
        self.schedule = self.pool._schedule
        self.story: list[tuple[float, str]] = []
        self.broken = ""
        self.ended = False
        self.generations = [0] * len(plan.kinds)
        self.failures = [list(reversed(row)) for row in plan.failures]
        self.memory: dict[Copy, None] = {}
        self.clients: dict[int, asyncio.Task[None]] = {}
        self.loads = [0] * len(plan.kinds)
        self.keeps: dict[Resident, float] = {}
        """What each ready model was last wished to stay."""
        self.cleared: set[Resident] = set()
        """Models that were told to be gone."""
        self.head: tuple[Resident | None, float] = (None, 0.0)
        self.turned: dict[Resident, tuple[float, str, set[Any]]] = {}
        self.sources = [
            Source(key=("local", kind.name), open=self.opener(number), need=self.scales(number), terms=kind.terms)
            for number, kind in enumerate(plan.kinds)
        ]
        kinds = plan.kinds
        self.held = hold = max((act.hold for act in plan.acts), default=0.0)
        self.longest = (
            2 * max(kind.load + kind.abort for kind in kinds)
            + 2 * max(kind.close for kind in kinds)
            + hold
            + 2 * plan.rules.switch_after
            + plan.rules.linger
            + PATIENCE
        )
        """Within it the first in line must get in or be refused: a load that runs, its fair time, its last requests."""

    def tell(self, text: str) -> None:
        self.story.append((self.loop.time(), text))

    def check(self, good: object, text: str) -> None:
        if not good:
            self.broken = self.broken or text
            raise Broken(text)

    # Models

    def scales(self, number: int) -> Any:
        kind = self.plan.kinds[number]

        async def need(options: LoadOptions) -> Need:
            if kind.weigh:
                await asyncio.sleep(kind.weigh)
            return Need(ram=self.ram(kind, options), vram=kind.vram, mapped=kind.mapped)

        return need

    def ram(self, kind: Kind, options: LoadOptions) -> int:
        return kind.ram + (2 if (options.context or 0) > CONTEXT else 0)

    def opener(self, number: int) -> Any:
        kind = self.plan.kinds[number]

        async def load(options: LoadOptions, tell: Tell) -> Copy:
            generation = self.generations[number]
            loaded = LoadOptions(context=max(options.context or 0, CONTEXT), threads=options.threads or 1)
            copy = Copy(self, kind, generation, loaded, self.ram(kind, options))
            self.tell(f"{kind.name} loads" + (f" with {_short(options)}" if options != LoadOptions() else ""))
            for other in self.memory:
                same = other.kind is kind and other.generation == generation
                self.check(not same, f"{kind.name} is in memory twice")
            self.loads[number] += 1
            self.memory[copy] = None
            self.weigh()
            try:
                tell(Progress(status="loading"))
                await asyncio.sleep(kind.load)
                failure = self.failures[number].pop() if self.failures[number] else None
                if failure is not None:
                    self.tell(f"{kind.name} fails: {failure}")
                    raise _FAILURES[failure]  # noqa: TRY301  # it is given back below, as whatever else goes wrong
            except asyncio.CancelledError:
                self.tell(f"{kind.name} is told to stop loading")
                if kind.deaf:
                    await asyncio.sleep(kind.load)
                    return copy
                try:
                    await asyncio.sleep(kind.abort)
                finally:
                    self.give(copy)
                self.tell(f"{kind.name} has stopped loading")
                raise
            except BaseException:
                self.give(copy)
                raise
            self.tell(f"{kind.name} is loaded")
            return copy

        return load

    def give(self, copy: Copy) -> None:
        del self.memory[copy]

    def weigh(self) -> None:
        """Memory that is taken, by any copy from the order to load until it is really gone, is never over the budget."""
        budget = self.plan.rules.budget
        local = [copy for copy in self.memory if copy.kind.terms.local]
        ram, vram = sum(copy.ram for copy in local), sum(copy.kind.vram for copy in local)
        self.check(ram <= budget.ram, f"{ram} of {budget.ram} bytes are taken")
        self.check(vram <= budget.vram, f"{vram} of {budget.vram} bytes of graphics memory are taken")
        self.check(len(local) <= budget.models, f"{len(local)} models of {budget.models} are in memory")
        alone = any(copy.kind.terms.exclusive for copy in local)
        self.check(
            not alone or len(local) == 1, f"an exclusive model is not alone: {[copy.kind.name for copy in local]}"
        )
        if self.plan.outside is not None:
            left = self.machine - self.plan.outside - ram
            self.check(left >= 0, f"the machine has {-left} bytes too little")

    @property
    def machine(self) -> float:
        return 2 * self.plan.rules.budget.ram if self.plan.rules.budget.ram < 100 else 12

    def measure(self, _: bool) -> Free:
        local = [copy for copy in self.memory if copy.kind.terms.local]
        taken = sum(copy.ram - copy.kind.mapped for copy in local)
        return Free(ram=self.machine - (self.plan.outside or 0) - taken)

    # Clients

    async def client(self, number: int, act: Act) -> None:
        kind = self.plan.kinds[act.model]
        wish = f" with {_short(act.options)}" if act.options != LoadOptions() else ""
        stay = f", keep_alive {act.keep_alive:g}" if act.keep_alive is not None else ""
        self.tell(f"{act.tenant}{number} wants {kind.name}{wish}{stay}")
        try:
            lease = await self.pool.lease(
                self.sources[act.model], options=act.options, keep_alive=act.keep_alive, tenant=act.tenant
            )
        except (GatewayError, Defect) as error:
            self.tell(f"{act.tenant}{number} is refused: {error}")
            return
        except asyncio.CancelledError:
            self.tell(f"{act.tenant}{number} has left")
            return
        copy = lease.model
        assert isinstance(copy, Copy)
        try:
            self.check(not copy.closed or self.ended, f"{number} got a closed {kind.name}")
            copy.holders.add(number)
            self.check(
                not copy.slots or len(copy.holders) <= copy.slots, f"{kind.name} has {copy.holders} in its slots"
            )
            self.tell(f"{act.tenant}{number} has {kind.name}")
            await asyncio.sleep(act.hold)
            self.check(not copy.closed or self.ended, f"{kind.name} was closed under {number}")
            self.tell(f"{act.tenant}{number} is done")
        except asyncio.CancelledError:
            self.tell(f"{act.tenant}{number} has left its answer")
        finally:
            copy.holders.discard(number)
            lease.release()

    def act(self, number: int, act: Act) -> None:
        name = self.plan.kinds[act.model].name
        match act.kind:
            case "ask":
                task = self.clients[number] = self.loop.create_task(self.client(number, act))
                if act.leave is not None:
                    self.loop.call_later(act.leave, task.cancel)
            case "unload":
                self.clients[number] = self.loop.create_task(self.unload(act.model))
            case "clear":
                self.clients[number] = self.loop.create_task(self.clear(act.model))
            case "retire":
                self.tell(f"{name} is replaced")
                self.generations[act.model] += 1
                self.pool.retire(("local", name))
            case "close":
                self.end(number)

    def end(self, number: int) -> None:
        if not self.ended:
            self.tell("the pool closes")
            self.ended = True
            self.clients[number] = self.loop.create_task(self.pool.close())

    async def unload(self, number: int) -> None:
        key = self.sources[number].key
        self.tell(f"{key[1]} is to be unloaded")
        resident = self.schedule.residents.get(key)
        if resident is not None and resident.phase in {Phase.READY, Phase.LOADING}:
            self.keeps[resident] = 0.0
        await self.pool.unload(key)

    async def clear(self, number: int) -> None:
        key = self.sources[number].key
        self.tell(f"{key[1]} is to be gone")
        self.cleared.update(one for one in self.pool.residents() if one.key == key)
        before = [copy for copy in self.memory if copy.kind.name == key[1]]
        await self.pool.clear((key,))
        self.check(not any(copy in self.memory for copy in before), f"{key[1]} is told to be gone, and is not")

    # Promises

    def seated(self, resident: Resident, turn: Lease) -> None:
        """Somebody gets a slot."""
        assert resident.model is not None
        name = resident.key[1]
        self.check(not resident.model.slots or resident.running < resident.model.slots, f"{name} has no slot free")
        self.check(
            resident.terms.options != "honour" or suffices(turn.options, resident.model.honours.load, resident.options),
            f"{name} does not do for {turn.options}",
        )
        older = [other for other in resident.queue if other.tenant == turn.tenant and other.serial < turn.serial]
        direct = turn.serial == 0
        self.check(not older and not (direct and resident.queue), f"somebody at {name} is overtaken")
        self.check(not resident.retired, f"{name} was replaced, and is given away")
        self.check(not (resident.draining or resident.leaving), f"{name} is to go, and gets more requests")
        if turn.keep_alive is not None:
            self.keeps[resident] = turn.keep_alive
        since, tenant, passed = self.turned.get(resident, (0.0, "", set()))
        if since == resident.since and tenant == turn.tenant and not direct:
            left = [other for other in passed if other.stand is Stand.WAITS and other in resident.queue]
            self.check(not left, f"{turn.tenant} is served twice at {name} while another tenant waits")
        self.turned[resident] = (
            resident.since, turn.tenant, {other for other in resident.queue if other.tenant != turn.tenant},
        )  # fmt: skip

    def closing(self, resident: Resident, now: float) -> None:
        """A ready model is ordered closed: why?"""
        name = resident.key[1]
        self.check(not resident.running or self.ended, f"{name} is closed with {resident.running} running")
        if self.ended or resident.retired or resident.waiting or resident.phase is Phase.ABORTING:
            return
        if resident in self.cleared:
            self.cleared.discard(resident)
            return
        keep = self.keeps.get(resident, resident.terms.keep_alive)
        dismissed = self.keeps.get(resident) == 0.0
        if self.schedule._line:
            self.check(not resident.terms.pinned or dismissed, f"the pinned {name} goes for another")
            return
        self.check(not resident.terms.pinned or dismissed, f"the pinned {name} is closed")
        self.check(
            keep >= 0 and now >= resident.used_at + keep - NEAR,
            f"{name} is closed before its time: {keep:g} s were wished",
        )

    def step(self) -> None:
        """After every callback."""
        if self.broken:
            raise Broken(self.broken)
        for resident in self.schedule.residents.values():
            slots = resident.slots
            if slots and resident.running > slots:
                self.check(False, f"{resident.key[1]} has {resident.running} in {slots} slots")
            if resident.phase is Phase.READY and resident.model is None:
                self.check(False, f"{resident.key[1]} is ready without a model")
            if resident.waiting > self.plan.rules.waiting + scheduling.SLOTS:
                self.check(False, f"{resident.waiting} wait for {resident.key[1]}")

    def advance(self) -> None:
        """Nothing is ready any more: what should have happened has."""
        now = self.loop.time()
        rules, schedule = self.plan.rules, self.schedule
        self.check(not schedule.orders, "orders are left lying")
        for resident in (*schedule.residents.values(), *schedule.retired):
            name = resident.key[1]
            for turn in resident.turns():
                self.check(turn.stand is Stand.WAITS, f"{name}'s queue has one who does not wait")
                self.check(
                    resident.phase not in {Phase.READY, Phase.IN_LINE} or resident.clock(now) < turn.due + NEAR,
                    f"somebody has waited too long for {name}",
                )
            if resident.phase is Phase.READY:
                self.check_ready(resident, now)
            elif resident.phase is Phase.LOADING and not resident.waiting and not resident.terms.pinned:
                until = (resident.abandoned or 0.0) + rules.abandoned
                self.check(resident.abandoned is not None and now < until + NEAR, f"{name} loads for nobody")
        line = [resident.since for resident in schedule._line]
        self.check(line == sorted(line), "somebody in line was overtaken")
        head = next(iter(schedule._line), None)
        if head is not self.head[0]:
            self.head = (head, now)
        self.check(head is None or now - self.head[1] <= self.longest, "the first in line is held back for too long")

    def check_ready(self, resident: Resident, now: float) -> None:
        name = resident.key[1]
        open_to_all = not (resident.draining or resident.leaving or resident.retired)
        waited = (
            resident.others and now >= max(resident.others.oldest.came, resident.since) + self.plan.rules.switch_after
        )
        if open_to_all and not waited:
            self.check(not resident.queue or not resident.free, f"{name} has a slot free, and somebody waits for one")
        if resident.others:
            since = max(resident.others.oldest.came, resident.since)
            late = now > since + self.plan.rules.switch_after + self.held + NEAR
            self.check(not late, f"who wants {name} otherwise is held back for too long")
        if resident.running:
            return
        self.check(not resident.retired, f"{name} was replaced, and stays")
        self.check(not resident.leaving, f"{name} is to go, and stays")
        self.check(not resident.waiting, f"{name} is idle, and somebody waits")
        keep = self.keeps.get(resident, resident.terms.keep_alive)
        over = keep >= 0 and now > resident.used_at + keep + NEAR
        self.check(not over or resident.terms.pinned, f"{name} stays longer than {keep:g} s")

    def final(self) -> None:
        """All is over."""
        for number, task in self.clients.items():
            self.check(task.done(), f"{number} never learns its fate")
            if not task.cancelled() and task.exception() is not None:
                raise task.exception() or Broken
        self.check(not self.memory, f"{[copy.kind.name for copy in self.memory]} stay in memory")
        schedule = self.schedule
        self.check(not schedule.residents and not schedule.retired and not schedule._line, "residents are left")
        self.check(not self.pool._work and not schedule.orders and self.pool._timer is None, "work is left")

    def bury(self) -> None:
        """End what was under way when a promise broke, without a word."""
        self.pool._release = self.pool._given_up = lambda _: None  # type: ignore[method-assign]
        tasks = [*self.clients.values(), *(work.task for work in self.pool._work.values())]
        for task in tasks:
            with contextlib.suppress(BaseException):
                task.get_coro().close()  # type: ignore[union-attr]

    def run(self) -> None:
        """Live it. Raises Broken, or whatever the pool raises that it should not."""
        for number, act in enumerate(self.plan.acts):
            self.loop.call_at(act.at, self.act, number, act)
        last = max((act.at for act in self.plan.acts), default=0.0)
        self.loop.call_at(last + 100.0, self.end, len(self.plan.acts))
        seat, close = scheduling._seat, scheduling.Schedule._close

        def seated(resident: Resident, turn: Any) -> None:
            self.seated(resident, turn)
            seat(resident, turn)

        def closing(schedule: Any, resident: Resident, model: Any, now: float) -> None:
            self.closing(resident, now)
            close(schedule, resident, model, now)
            self.keeps.pop(resident, None)

        scheduling._seat, scheduling.Schedule._close = seated, closing
        try:
            self.loop.run()
            self.final()
        except Exception as error:
            if self.broken:
                raise Broken(self.broken) from None
            raise Broken(f"{type(error).__name__}: {error}\n{traceback.format_exc()}") from error
        finally:
            scheduling._seat, scheduling.Schedule._close = seat, close


class Defect(Exception):
    """A backend that raises what it should not."""


_FAILURES = {
    "backend": BackendError("broken"),
    "memory": OutOfMemory("too little memory after all"),
    "missing": ModelNotFound("gone"),
    "defect": Defect("oops"),
}


def _short(options: LoadOptions) -> str:
    parts = ((name, getattr(options, name)) for name in options.__struct_fields__)
    return " ".join(f"{name} {value}" for name, value in parts if value is not None)


def live(plan: Plan) -> tuple[World, str]:
    """Run a plan; the world afterwards, and what was broken."""
    logging.disable(logging.CRITICAL)
    world = World(plan)
    try:
        world.run()
    except Broken as error:
        world.bury()
        return world, str(error)
    finally:
        logging.disable(logging.NOTSET)
    return world, ""
