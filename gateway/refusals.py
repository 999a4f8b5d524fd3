"""What those are told whom the pool refuses."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

from backends.base import Need
from canonical.errors import Busy, GatewayError, InvalidRequest, OutOfMemory
from gateway.residents import Phase, Resident
from gateway.room import Budget, Free


def full() -> Busy:
    """What those get for whom a queue is too long; in words that Ollama's clients know."""
    return Busy("server busy, please try again.  maximum pending requests exceeded", retry_after=1)


def late(resident: Resident, time: float) -> Busy:
    """What those get who have waited too long."""
    if resident.phase is Phase.IN_LINE:
        return Busy(f"no memory came free within {time:g} s, as other models are in use", retry_after=5)
    return Busy(f"no slot came free within {time:g} s", retry_after=5)


def again(error: BaseException, pause: float) -> BaseException:
    """The error of a failed load for those who come before it is tried again."""
    if not isinstance(error, GatewayError):
        return error
    told = copy.copy(error)
    told.retry_after = pause
    return told


def as_configured(resident: Resident) -> InvalidRequest:
    """What those get who want a model loaded differently, where that is refused."""
    return InvalidRequest(
        f"the model {resident.key[1]!r} is loaded as configured, and requests cannot change that", param="options"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _needs(name: str, need: Need) -> str:
    graphics = f" and {_size(need.vram)} on graphics processors" if need.vram else ""
    return f"the model {name!r} requires more system memory ({_size(need.ram)}{graphics})"


def never(name: str, need: Need, budget: Budget, pinned: Sequence[Resident]) -> OutOfMemory:
    """What those get whose model is too large for this machine."""
    amount = " and ".join(
        words
        for limit, words in (
            (budget.ram, f"{_size(budget.ram)}"),
            (budget.vram, f"{_size(budget.vram)} on graphics processors"),
        )
        if limit != math.inf
    )
    beside = f", part of it for pinned models ({', '.join(resident.key[1] for resident in pinned)})" if pinned else ""
    return OutOfMemory(f"{_needs(name, need)} than models may take here ({amount or 'one model alone'}{beside})")


def no_memory(name: str, need: Need, free: Free) -> OutOfMemory:
    """What those get for whose model others than ours left no memory."""
    return OutOfMemory(f"{_needs(name, need)} than is available ({_size(free.ram)})")
