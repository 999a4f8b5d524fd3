"""An event loop whose clock jumps to the next timer when nothing is ready: tests of time that take none."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep, its clock moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop for code without sockets and threads. A deadlock is an error instead of a hang."""

    def __init__(self) -> None:
        self._selector_of_time = _Selector()
        super().__init__(self._selector_of_time)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._selector_of_time.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a fresh virtual loop; tasks left behind are an error."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        async def whole() -> T:
            try:
                return await main
            finally:
                for _ in range(3):  # what was cancelled last needs a moment to end
                    await asyncio.sleep(0)
                left = asyncio.all_tasks() - {asyncio.current_task()}
                assert not left, f"tasks left behind: {left}"

        return runner.run(whole())
