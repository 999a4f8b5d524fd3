"""Memory that is free, given back: a worker that has seen a large picture would hold on to hundreds of megabytes."""

from __future__ import annotations

import contextlib
import ctypes
import time

PAUSE = 1.0
"""Seconds between two looks at what memory is free: each takes milliseconds."""


class Broom:
    """Gives back to the system what the process has freed; the C library keeps what a large picture took, else."""

    def __init__(self) -> None:
        self._swept = -PAUSE

    def sweep(self) -> None:
        """Do so, unless it was done a moment ago."""
        now = time.monotonic()
        if now - self._swept >= PAUSE:
            self._swept = now
            with contextlib.suppress(OSError, AttributeError):  # other systems need not be told
                ctypes.CDLL(None).malloc_trim(0)
