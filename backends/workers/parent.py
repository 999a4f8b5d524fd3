"""A process that ends with the one that started it, however that one ends. Only Linux promises so much."""

from __future__ import annotations

import contextlib
import ctypes

_PR_SET_PDEATHSIG = 1


def die_with_parent(by: int) -> None:
    """Ask the kernel for this signal when the parent is gone. Other systems leave the process behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
