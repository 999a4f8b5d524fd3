"""What can be known of this machine without asking the libraries that compute on it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path

_DEVICES = ("dev/nvidia0", "dev/nvidiactl", "dev/kfd", "dev/dxg")
MOST = 4
"""Threads past which a picture is hardly seen any sooner."""
PAUSE = 1.0
"""Seconds between two looks at what memory is free: each takes milliseconds."""


def may_have_gpu(root: Path = Path("/")) -> bool:
    """Whether there is a device that torch might compute on."""
    return any((root / device).exists() for device in _DEVICES)


def threads_for(wanted: int) -> int:
    """So many as are wanted; 0: half of the processors, as two threads on one core are no faster than one."""
    return wanted or max(1, min(MOST, (os.cpu_count() or 1) // 2))


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
