"""What can be known of this machine without asking the libraries that compute on it."""

from __future__ import annotations

import os
from pathlib import Path

_DEVICES = ("dev/nvidia0", "dev/nvidiactl", "dev/kfd", "dev/dxg")
MOST = 4
"""Threads past which a picture is hardly seen any sooner."""


def may_have_gpu(root: Path = Path("/")) -> bool:
    """Whether there is a device that torch might compute on."""
    return any((root / device).exists() for device in _DEVICES)


def threads_for(wanted: int) -> int:
    """So many as are wanted; 0: half of the processors, as two threads on one core are no faster than one."""
    return wanted or max(1, min(MOST, (os.cpu_count() or 1) // 2))
