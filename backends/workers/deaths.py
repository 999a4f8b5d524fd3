"""Deaths that repeat: three within a minute are a pattern, and then there is a pause before the next try, longer each time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

DEATHS = 3
WITHIN = 60.0
PAUSE, LONGEST_PAUSE = 5.0, 300.0


class Deaths:
    """Of one model's processes, however often it is unloaded in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=DEATHS)
        self._pause = PAUSE
        self._until: float | None = None
        """End of the last pause."""

    def add(self) -> None:
        """One more."""
        now = self._clock()
        self._recent.append(now)
        again = self._until is not None and now - self._until < WITHIN
        if self._until is not None and not again:
            self._pause, self._until = PAUSE, None
        if again or (len(self._recent) == DEATHS and now - self._recent[0] < WITHIN):
            self._until = now + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def left(self) -> float:
        """Seconds until the next try."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())
