"""How few loads could do: what a scheduler that knows the future would need for requests that all come at once.

Under the bound on holding back, a model in memory keeps its room at most until it has served all that wait for it, and at
least ``switch_after`` seconds if it has that much to do. So a model is loaded once for every such time that its requests
need, and never less than once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct


class Crowd(Struct, frozen=True):
    """Requests for one model, which all come at once."""

    requests: int
    hold: float
    """Seconds that each takes."""
    slots: int = 1


def fewest_loads(crowds: Sequence[Crowd], *, fit: int, switch_after: float) -> int:
    """The fewest loads for all of ``crowds`` where only ``fit`` models are in memory at once."""
    busy = [crowd for crowd in crowds if crowd.requests]
    if len(busy) <= fit:
        return len(busy)
    return sum(_loads(crowd, switch_after) for crowd in busy)


def _loads(crowd: Crowd, switch_after: float) -> int:
    rounds = math.ceil(crowd.requests / crowd.slots) if crowd.slots else 1
    if crowd.hold <= 0 or switch_after <= 0:
        return 1 if switch_after > 0 else rounds
    # The last round that begins within the time still ends: who has a slot keeps it.
    a_time = math.ceil(switch_after / crowd.hold)
    return math.ceil(rounds / a_time)
