"""What is loaded and closed when, and who gets a slot: decisions alone, without tasks, clock or memory of its own.

Events come in with the time at which they happen; what is to be done lies in ``orders`` afterwards, and ``next`` says when
to call ``tick``. ``pool`` carries the orders out and reports how they ended. Nobody else changes the state, and every
decision is made in one call: a snapshot may inform, but what it said is never relied upon later.

    weighing ── in line ── loading ── ready ── closing ── gone
                   └─────────│──────────────────┘└─ somebody waits: weighing again
                             └─ nobody waits any more: aborting ─┘

- A model that is wanted is weighed, stands in line for room, and is loaded once for all who wait for it.
- A request that has a slot keeps its model where it is. Idle models go for others, those used longest ago first.
- Requests for what is loaded are served first; but nobody in line is held back longer than ``switch_after`` by new ones: then
  a busy model gets no more requests, and goes when those that run have ended. So does one that is wanted with other options.
- Memory is taken from the order to load until the load, its abort or the closing has really ended.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from msgspec import Struct

from backends.base import Model, Need
from canonical.errors import GatewayError, OutOfMemory, shutting_down
from canonical.loading import merged
from canonical.requests import LoadOptions
from gateway.refusals import again, as_configured, full, late, never, no_memory
from gateway.residents import Abort, Close, Key, Open, Order, Phase, Resident, Rules, Terms, Wake, Weigh
from gateway.room import Budget, Free, fits, room_for
from gateway.turns import Queue, Stand, Turn

SLOTS = 256
"""The most that a model is thought to have, while it is not known."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds before a load is tried again, after the first failure, the second ..."""
PATIENCE = 2.0
"""Seconds that memory which others hold may take to come free, before a load is refused for it."""
REGRET = 2.0
"""Loads that a model is kept idle for, where its client came back soon after it had to go: to load the other and it again."""
_PRESENT = frozenset({Phase.LOADING, Phase.READY, Phase.CLOSING, Phase.ABORTING})
"""Phases in which a model has memory, or may."""
_REMEMBERED = 1024
"""Models whose failures, and whose going, are remembered."""


class _Failure(Struct):
    count: int
    until: float
    error: BaseException


class Schedule:
    """All residents of one process, and all who want one."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.residents: dict[Key, Resident] = {}
        """Those that new requests meet."""
        self.retired: dict[Resident, None] = {}
        self.orders: list[Order | Wake] = []
        self.next = math.inf
        """When ``tick`` must be called, at the latest."""
        self.free = Free()
        """What was measured last; of interest while ``crowded``."""
        self._line: dict[Resident, None] = {}
        self._draining: list[Resident] = []
        self._failures: dict[Key, _Failure] = {}
        self._sent_away: dict[Key, float] = {}
        """When a model went for others, last."""
        self._closed = False
        self._serial = 0
        self._changed = False

    # What happens outside

    def ask(self, turn: Turn, key: Key, terms: Terms, source: object, now: float) -> None:
        """A request comes: afterwards it holds a slot, waits or is refused."""
        resident = self._joined(key)
        if resident is not None and self._open_to_all(resident) and resident.does_for(turn.options):
            _seat(resident, turn)
            return
        if self._closed:
            self._refuse(turn, shutting_down())
            return
        if resident is None:
            failure = self._failures.get(key)
            if failure is not None and now < failure.until:
                self._refuse(turn, again(failure.error, failure.until - now))
                return
            resident = self.residents[key] = Resident(key, terms, source, now)
            self._join(resident, turn, now)
            self._weigh(resident, now)
        else:
            self._join(resident, turn, now)
        self._follow(resident, now)

    def leave(self, turn: Turn, now: float) -> None:
        """Somebody who waits goes."""
        assert turn.stand is Stand.WAITS
        turn.stand = Stand.LEFT
        _take_out(turn)
        self._follow(_resident(turn), now)

    def release(self, turn: Turn, now: float) -> None:
        """A request has ended, however it did."""
        assert turn.stand is Stand.HOLDS
        turn.stand = Stand.DONE
        resident = _resident(turn)
        assert resident.running > 0
        resident.running -= 1
        resident.used_at = now
        if not resident.running and not self._line and resident.keep_alive and self._open_to_all(resident):
            self._rest(resident, now)
        else:
            self._follow(resident, now)

    def weighed(self, resident: Resident, need: Need, now: float) -> None:
        """It is known what a model would take."""
        if resident.phase is Phase.ABORTING:
            self._end(resident, now)
        else:
            wanted = (
                _wanted(resident, resident.options, resident.queue.oldest) if resident.waiting else resident.options
            )
            if wanted == resident.options:
                resident.need = need
                self._stand_in_line(resident, now)
            else:  # who came meanwhile wants more
                resident.options = wanted
                self.orders.append(Weigh(resident))
        self._settle(now)

    def loaded(self, resident: Resident, model: Model, now: float) -> None:
        """A load has ended well."""
        if resident.phase is Phase.ABORTING:
            self._close(resident, model, now)
            self._settle(now)
            return
        self._failures.pop(resident.key, None)
        resident.linger = self._linger(resident, now - resident.since)
        resident.model, resident.slots = model, model.slots
        resident.used_at = now
        resident.tight = resident.alone = False
        self._enter(resident, Phase.READY, now)
        for turn in _emptied(resident):
            self._push(resident, turn)
        leaving, resident.leaving = resident.leaving, False  # not before it was of some use
        self._serve(resident, now)
        resident.leaving = leaving
        while resident.waiting > self.rules.waiting:
            self._send_away(resident)
        self._settle(now)

    def failed(self, resident: Resident, error: BaseException, now: float) -> None:
        """A load or a weighing has failed, or has been stopped."""
        if resident.phase is Phase.ABORTING:
            self._end(resident, now)
        elif isinstance(error, OutOfMemory) and resident.holds and not resident.tight and self._can_help(resident):
            resident.holds, resident.tight = False, True
            self._stand_in_line(resident, now)
        else:
            if isinstance(error, Exception):
                self._note_failure(resident.key, error, now)
            else:
                error = shutting_down()  # nobody but the end of the process stops a load without an order
            for turn in _emptied(resident):
                self._refuse(turn, error)
            self._end(resident, now)
        self._settle(now)

    def closed(self, resident: Resident, now: float) -> None:
        """A model's memory is free again."""
        self._end(resident, now)
        self._settle(now)

    def unload(self, key: Key, now: float) -> None:
        """A model is to go when its last request ends; nothing happens where it is not loaded."""
        resident = self.residents.get(key)
        if resident is None or resident.phase not in {Phase.READY, Phase.LOADING}:
            return
        resident.keep_alive = 0
        resident.dismissed = True
        resident.abandoned = -math.inf
        self._settle(now)

    def dismiss(self, keys: Collection[Key], now: float) -> list[Resident]:
        """These models are to go; those that are in memory, or going, or on their way. Who comes for one waits for its next load.

        Its requests end first; those that wait for a load under way are served by it, as many as it has slots.
        """
        found = [resident for resident in self._everybody() if resident.key in keys and resident.phase in _PRESENT]
        for resident in found:
            resident.leaving = resident.phase in {Phase.LOADING, Phase.READY}
            if resident.phase is Phase.LOADING:
                resident.dismissed, resident.abandoned = True, -math.inf
        self._settle(now)
        return found

    def retire(self, key: Key, now: float) -> None:
        """A model's files are gone or replaced: what runs goes on with it, and who comes or waits gets what is there now."""
        self._failures.pop(key, None)
        resident = self.residents.pop(key, None)
        if resident is None:
            return
        waiting = [(turn, turn.due - resident.clock(now)) for turn in _emptied(resident)]
        resident.retired = True
        self.retired[resident] = None
        if resident.phase in {Phase.WEIGHING, Phase.LOADING}:
            self._abort(resident, now)
        elif resident.phase is Phase.IN_LINE:
            self._end(resident, now)
        if waiting:
            fresh = self.residents[key] = Resident(key, resident.terms, resident.source, now)
            for turn, left in waiting:
                turn.place, turn.due = fresh, left
                fresh.queue.push(turn)
            self._weigh(fresh, now)
        self._settle(now)

    def close(self, now: float) -> None:
        """The process ends: whoever waits is refused, and every model closed, whoever uses it."""
        self._closed = True
        for resident in self._everybody():
            for turn in _emptied(resident):
                self._refuse(turn, shutting_down())
            if resident.model is not None:
                self._close(resident, resident.model, now)
            elif resident.phase in {Phase.WEIGHING, Phase.LOADING}:
                self._abort(resident, now)
            elif resident.phase is Phase.IN_LINE:
                self._end(resident, now)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self.next = math.inf
        self._settle(now)

    def does_for(self, key: Key, options: LoadOptions) -> bool:
        """Whether a model is ready that serves a request of these options as it is."""
        resident = self.residents.get(key)
        return resident is not None and resident.does_for(options)

    def check(self, key: Key, need: Need) -> None:
        """Raise OutOfMemory where a model of this need can never be loaded."""
        budget = self.rules.budget
        if need.ram > budget.ram or need.vram > budget.vram:
            raise never(key[1], need, budget, ())

    @property
    def crowded(self) -> bool:
        """Whether somebody stands in line for room, so that it matters what is free."""
        return bool(self._line)

    # Requests

    def _joined(self, key: Key) -> Resident | None:
        """Whom a request for a model meets: the same as all others do, so that it is loaded once."""
        return self.residents.get(key)

    @staticmethod
    def _open_to_all(resident: Resident) -> bool:
        """Whether who comes gets a slot at once."""
        return (
            resident.model is not None
            and not resident.queue
            and not resident.others
            and not resident.draining
            and not resident.leaving
            and not resident.retired
            and resident.free
        )

    def _join(self, resident: Resident, turn: Turn, now: float) -> None:
        self._serial += 1
        turn.serial, turn.came, turn.place = self._serial, now, resident
        turn.due = resident.clock(now) + self.rules.waiting_time
        self._push(resident, turn)
        # How many a model serves at once is known when it is ready: the end of its load bounds the queue. What takes no
        # memory here takes no time to load either, and serves as many as come.
        ready = resident.model is not None
        if resident.waiting > self.rules.waiting + (0 if ready else SLOTS) and (ready or resident.terms.local):
            self._send_away(resident)

    def _push(self, resident: Resident, turn: Turn) -> None:
        if resident.model is None or resident.does_for(turn.options):
            resident.queue.push(turn)
        elif resident.terms.options == "refuse":
            self._refuse(turn, as_configured(resident))
        else:
            resident.others.push(turn)

    def _send_away(self, resident: Resident) -> None:
        turn = max(resident.queue, resident.others, key=len).overflow()
        _take_out(turn)
        self._refuse(turn, full())

    def _refuse(self, turn: Turn, error: BaseException) -> None:
        turn.stand, turn.error = Stand.REFUSED, error
        self._changed = True
        self.orders.append(Wake(turn))

    def _serve(self, resident: Resident, now: float) -> None:
        """Give free slots to those whose turn it is."""
        if resident.draining or resident.leaving or resident.retired or self._held_back(resident, now):
            return
        while resident.queue and resident.free:
            turn = resident.queue.pop()
            _seat(resident, turn)
            self._changed = True
            self.orders.append(Wake(turn))

    def _held_back(self, resident: Resident, now: float) -> bool:
        """Whether those who want it loaded differently have waited long enough for those who do not."""
        if not resident.others:
            return False
        until = max(resident.others.oldest.came, resident.since) + self.rules.switch_after
        self._soon(until, now)
        return now >= until

    def _give_up(self, resident: Resident, now: float) -> None:
        """Refuse who has waited too long."""
        for queue in (resident.queue, resident.others):
            while queue:
                until = resident.since + (queue.oldest.due - resident.waited)
                if now < until:
                    self._soon(until, now)
                    break
                turn = queue.oldest
                queue.remove(turn)
                self._refuse(turn, late(resident, self.rules.waiting_time))

    # Models

    def _follow(self, resident: Resident, now: float) -> None:
        """``_settle``, where only one model can be concerned unless somebody stands in line."""
        if self._line or self._draining:
            self._settle(now)
            return
        while True:
            self._changed = False
            self._step(resident, now)
            if not self._changed:
                return

    def _settle(self, now: float) -> None:
        """Do whatever follows from the state, until nothing more does."""
        while True:
            self._changed = False
            for resident in self._draining:
                resident.draining = False
            self._draining.clear()
            if self._line:
                self._make_room(now)
            for resident in self._everybody():
                self._step(resident, now)
            if not self._changed:
                return

    def _step(self, resident: Resident, now: float) -> None:
        match resident.phase:
            case Phase.READY:
                self._serve(resident, now)
                self._give_up(resident, now)
                if not resident.running:
                    self._idle(resident, now)
            case Phase.IN_LINE:
                self._give_up(resident, now)
                if not resident.waiting:
                    self._end(resident, now)
            case Phase.WEIGHING:
                if not resident.waiting:
                    self._abort(resident, now)
            case Phase.LOADING:
                self._watch_load(resident, now)
            case _:
                pass

    def _idle(self, resident: Resident, now: float) -> None:
        """What becomes of a ready model that no request holds."""
        if resident.queue and not self._held_back(resident, now) and not (resident.draining or resident.leaving):
            return  # whose turn it is comes next
        self._rest(resident, now)
        over = resident.expiry is not None and now >= resident.expiry
        over = over or resident.dismissed or (resident.keep_alive == 0 and not resident.terms.pinned)
        # Who waits here wants it loaded differently, or it is for others to come in.
        if over or resident.draining or resident.leaving or resident.retired or resident.waiting:
            assert resident.model is not None
            self._close(resident, resident.model, now)

    def _rest(self, resident: Resident, now: float) -> None:
        """Start the idle clock, where it does not run yet."""
        if resident.expiry is None and resident.keep_alive > 0 and not resident.terms.pinned:
            resident.expiry = resident.used_at + resident.keep_alive
        if resident.expiry is not None:
            self._soon(resident.expiry, now)

    def _watch_load(self, resident: Resident, now: float) -> None:
        """Stop a load that nobody waits for any more."""
        if resident.terms.pinned and not resident.dismissed:
            return
        if resident.waiting:
            if resident.abandoned != -math.inf:
                resident.abandoned = None
            return
        if resident.abandoned is None:
            resident.abandoned = now
        until = resident.abandoned + self.rules.abandoned
        if now >= until:
            self._abort(resident, now)
        else:
            self._soon(until, now)

    def _weigh(self, resident: Resident, now: float) -> None:
        """Begin a life: for those who wait, in the order in which they came."""
        base = resident.options if resident.others else resident.terms.load
        first = (resident.others or resident.queue).oldest
        for turn in _emptied(resident):
            resident.queue.push(turn)
        resident.options = _wanted(resident, base, first)
        resident.keep_alive = resident.terms.keep_alive
        resident.expiry = resident.abandoned = resident.progress = None
        resident.dismissed = resident.leaving = False
        resident.suited.clear()
        if resident.terms.local:
            self._enter(resident, Phase.WEIGHING, now)
            self.orders.append(Weigh(resident))
        else:
            self._open(resident, now)

    def _stand_in_line(self, resident: Resident, now: float) -> None:
        self._enter(resident, Phase.IN_LINE, now)
        self._line[resident] = None

    def _open(self, resident: Resident, now: float) -> None:
        self._line.pop(resident, None)
        resident.holds = resident.terms.local
        self._enter(resident, Phase.LOADING, now)
        self.orders.append(Open(resident))

    def _abort(self, resident: Resident, now: float) -> None:
        self._enter(resident, Phase.ABORTING, now)
        self.orders.append(Abort(resident))

    def _close(self, resident: Resident, model: Model, now: float) -> None:
        resident.model = resident.expiry = None
        self._enter(resident, Phase.CLOSING, now)
        self.orders.append(Close(resident, model))

    def _end(self, resident: Resident, now: float) -> None:
        """It holds nothing any more; if somebody waits, it begins anew."""
        self._line.pop(resident, None)
        resident.holds = False
        if resident.waiting:
            self._weigh(resident, now)
            return
        self._enter(resident, Phase.GONE, now)
        if resident.retired:
            del self.retired[resident]
        else:
            del self.residents[resident.key]

    def _enter(self, resident: Resident, phase: Phase, now: float) -> None:
        resident.enter(phase, now)
        self._changed = True

    def _everybody(self) -> list[Resident]:
        return [*self.residents.values(), *self.retired]

    def _soon(self, when: float, now: float) -> None:
        if now < when < self.next:
            self.next = when

    def _note_failure(self, key: Key, error: Exception, now: float) -> None:
        """Let the next load of the model wait, longer each time, unless the reason is one that costs nothing to meet again."""
        if isinstance(error, GatewayError) and (error.status < 500 or error.retry):
            return
        known = self._failures.pop(key, None)
        count = known.count if known is not None else 0
        _forget_oldest(self._failures)
        self._failures[key] = _Failure(count + 1, now + PAUSES[min(count, len(PAUSES) - 1)], error)

    # Room

    def _make_room(self, now: float) -> None:
        """Load whom there is room for, in the order of the line, and see that room is made for the others.

        Who comes later goes first only where that takes nothing from those before.
        """
        held = [resident for resident in self._everybody() if resident.holds]
        staying = [resident for resident in held if resident.phase in {Phase.LOADING, Phase.READY}]
        before: list[Resident] = []
        budget = self._budget(held)
        for want in list(self._line):
            if not want.waiting:
                continue
            pinned = [resident for resident in held if resident.terms.pinned]
            others = [resident for resident in staying if not resident.terms.pinned]
            if room_for(want, pinned, others, self.rules.budget) is None:
                self._too_large(want, pinned, now)
                continue
            loading = any(resident.phase is Phase.LOADING for resident in held)
            leaving = len(held) > len(staying)
            if not (leaving or loading or before) and room_for(want, pinned, others, budget) is None:
                if now >= want.since + PATIENCE:
                    self._refuse_all(want, no_memory(want.key[1], want.need, self.free))
                    continue
                self._soon(want.since + PATIENCE, now)
            idle, busy = self._movable(want, staying, now)
            fixed = [resident for resident in staying if resident not in idle]
            # While a load takes what it takes, what is free is no reason to close anything: only to wait.
            planned = self.rules.budget if loading else budget
            going = room_for(want, [*fixed, *before], idle, planned)
            if want.tight and going is not None:
                going = idle
            if going is None:
                fixed = [resident for resident in fixed if resident not in busy]
                going = room_for(want, [*fixed, *before], [*idle, *busy], planned) or []
                for resident in busy:
                    resident.draining = resident in going
                self._draining.extend(resident for resident in busy if resident.draining)
            elif not going and fits((want, *held), budget) and not (want.tight and leaving):
                self._open(want, now)
                held.append(want)
                staying.append(want)
                continue
            else:
                for resident in going:
                    self._send_off(resident, now)
            staying = [resident for resident in staying if resident not in going]
            before.append(want)

    def _movable(
        self, want: Resident, staying: Sequence[Resident], now: float
    ) -> tuple[list[Resident], list[Resident]]:
        """Those who can go for ``want`` at once, and those who can once their requests have ended; who should first, first."""
        idle: list[Resident] = []
        busy: list[Resident] = []
        for resident in staying:
            if resident.terms.pinned:
                continue
            if resident.phase is Phase.LOADING:
                if not resident.waiting:
                    idle.append(resident)
                continue
            held_back = max(want.since, resident.since) + self.rules.switch_after
            if _evictable(resident):
                until = now if want.tight else min(resident.used_at + resident.linger, held_back)
                (idle if now >= until else []).append(resident)
            else:
                until = now if resident.retired else held_back
                (busy if now >= until else []).append(resident)
            self._soon(until, now)
        idle.sort(key=lambda resident: resident.used_at)
        busy.sort(key=lambda resident: resident.since)
        return idle, busy

    def _send_off(self, resident: Resident, now: float) -> None:
        if resident.model is None:
            self._abort(resident, now)
        else:
            self._close(resident, resident.model, now)
            self._sent_away.pop(resident.key, None)
            _forget_oldest(self._sent_away)
            self._sent_away[resident.key] = now

    def _linger(self, resident: Resident, took: float) -> float:
        """How long a model whose load took so long is kept idle: two clients with pauses must not load with each request."""
        gone = self._sent_away.get(resident.key, -math.inf)
        back = resident.since - gone <= self.rules.switch_after + REGRET * took
        return max(self.rules.linger, REGRET * took) if back else self.rules.linger

    def _budget(self, held: Iterable[Resident]) -> Budget:
        """What all may take now: no more than was set, and than they have or is free.

        Loads under way have not taken yet what they need; pages of mapped files are needed, and measured as free.
        """
        ram, vram = self.free.ram, self.free.vram
        for resident in held:
            if resident.phase in {Phase.READY, Phase.CLOSING}:
                ram += resident.need.ram - resident.need.mapped
                vram += resident.need.vram
        budget = self.rules.budget
        return Budget(ram=min(budget.ram, ram), vram=min(budget.vram, vram), models=budget.models)

    def _can_help(self, resident: Resident) -> bool:
        """Whether others could go for one whose load found too little memory."""
        return any(
            other is not resident
            and other.holds
            and (_evictable(other) or other.phase in {Phase.CLOSING, Phase.ABORTING})
            for other in self._everybody()
        )

    def _too_large(self, want: Resident, pinned: Sequence[Resident], now: float) -> None:
        """What is wanted can never fit: at least not for all who wait together."""
        first = want.queue.oldest
        if want.alone or want.options == merged(want.terms.load, first.options):
            error = never(want.key[1], want.need, self.rules.budget, pinned)
            for turn in [turn for turn in want.queue if turn.options == first.options]:
                want.queue.remove(turn)
                self._refuse(turn, error)
        want.alone = True
        self._end(want, now)

    def _refuse_all(self, resident: Resident, error: BaseException) -> None:
        for turn in _emptied(resident):
            self._refuse(turn, error)


def _seat(resident: Resident, turn: Turn) -> None:
    """Give a slot to a turn."""
    assert resident.model is not None
    turn.stand, turn.model, turn.place = Stand.HOLDS, resident.model, resident
    resident.running += 1
    resident.expiry = None
    if turn.keep_alive is not None:
        resident.keep_alive, resident.dismissed = turn.keep_alive, False


def _evictable(resident: Resident) -> bool:
    """Whether a model may go for want of room: it is ready, and no request has it or is about to."""
    return resident.phase is Phase.READY and not resident.running and not resident.waiting and not resident.terms.pinned


def _forget_oldest(remembered: dict[Key, Any]) -> None:
    while len(remembered) >= _REMEMBERED:
        del remembered[next(iter(remembered))]


def _resident(turn: Turn) -> Resident:
    assert isinstance(turn.place, Resident)
    return turn.place


def _take_out(turn: Turn) -> None:
    resident = _resident(turn)
    (resident.queue if turn in resident.queue else resident.others).remove(turn)


def _emptied(resident: Resident) -> list[Turn]:
    """All who waited for a model, in the order of coming, out of its queues."""
    turns = sorted(resident.turns(), key=lambda turn: turn.serial)
    resident.queue, resident.others = Queue(), Queue()
    return turns


def _wanted(resident: Resident, base: LoadOptions, first: Turn) -> LoadOptions:
    """How to load a model for all who wait for it, in its queue; for whom it cannot do as well waits for the next load."""
    if resident.terms.options != "honour":
        return resident.terms.load
    if resident.alone:
        return merged(resident.terms.load, resident.queue.oldest.options)
    options = merged(base, first.options)
    contexts = [turn.options.context for turn in resident.queue if turn.options.context is not None]
    return merged(options, LoadOptions(context=max(contexts))) if contexts else options
