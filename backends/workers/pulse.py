"""When an engine counts as hung: not when it is slow, only when nothing moves any more.

A long prompt on a slow machine takes minutes without a token, but it takes processor time too. What has begun to make
steps and then spins without any for very long hangs as well.
"""

from __future__ import annotations

from backends.workers.frames import Pulse

SPIN = 10
"""Times the limit that an engine may compute without a step, once it has made one."""
BUSY = 0.02
"""Share of one processor that counts as work."""


class Watch:
    """Over one engine. ``limit``: seconds without a sign of life; 0: it never counts as hung."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: float | None = None
        self._worked = self._looked = 0.0
        self._last = Pulse()

    def feel(self, now: float, pulse: Pulse) -> bool:
        """Whether it hangs, ``now`` that its pulse is this. The answer to a ping is no sign of life by itself."""
        last, self._last = self._last, pulse
        before, self._looked = self._looked, now
        if not pulse.computing or self._since is None or pulse.steps != last.steps:
            self._since = self._worked = now
            return False
        if pulse.seconds - last.seconds >= BUSY * (now - before):
            self._worked = now
        if not self.limit:
            return False
        return now - self._worked >= self.limit or (bool(pulse.stepping) and now - self._since >= SPIN * self.limit)
