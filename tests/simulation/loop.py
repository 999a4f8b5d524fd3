"""An event loop whose clock jumps, and which runs what is ready in an order that a seed decides.

asyncio promises no more of the order than that, so what holds here for many seeds does not hang on it. Lean: no sockets, no
threads, no contexts; a callback costs a microsecond.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from typing import Any


class _Timer:
    __slots__ = ("args", "at", "callback", "number")

    def __init__(self, at: float, number: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.at, self.number = at, number
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    def __lt__(self, other: _Timer) -> bool:
        return (self.at, self.number) < (other.at, other.number)

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None


class Loop(asyncio.AbstractEventLoop):
    """``step`` is called after every callback, ``advance`` before the clock moves: nothing is ready then."""

    def __init__(self, chance: random.Random, step: Callable[[], None], advance: Callable[[], None]) -> None:
        self._chance = chance
        self._step, self._advance = step, advance
        self._ready: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._timers: list[_Timer] = []
        self._now = 0.0
        self._number = 0
        self.callbacks = 0

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        self._ready.append((callback, args))

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        self._number += 1
        timer = _Timer(max(when, self._now), self._number, callback, args)
        heapq.heappush(self._timers, timer)
        return timer

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self._now + delay, callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self)

    def call_exception_handler(self, context: Any) -> None:
        """What nobody fetched is told by whom it concerns."""

    def run(self) -> None:
        """Run until nothing is left to do. What a callback raises comes out here."""
        asyncio._set_running_loop(self)
        ready, timers, chance, step = self._ready, self._timers, self._chance.random, self._step
        try:
            while True:
                while ready:
                    count = len(ready)
                    if count > 1:
                        place = int(chance() * count)
                        ready[place], ready[-1] = ready[-1], ready[place]
                    callback, args = ready.pop()
                    self.callbacks += 1
                    callback(*args)
                    step()
                self._advance()
                if ready:
                    continue
                while timers and timers[0].callback is None:
                    heapq.heappop(timers)
                if not timers:
                    return
                self._now = timers[0].at
                while timers and timers[0].at <= self._now:
                    timer = heapq.heappop(timers)
                    if timer.callback is not None:
                        ready.append((_fire, (timer,)))
        finally:
            asyncio._set_running_loop(None)


def _fire(timer: _Timer) -> None:
    if timer.callback is not None:
        timer.callback(*timer.args)
