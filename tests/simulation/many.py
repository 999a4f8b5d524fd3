"""Many lives, in a process of its own."""

from __future__ import annotations

from tests.simulation.plan import plan_of
from tests.simulation.world import live

CHUNK = 100


def tries(first: int) -> tuple[list[int], int]:
    """The seeds of a chunk that break a promise, and how many callbacks ran."""
    broken, callbacks = [], 0
    for seed in range(first, first + CHUNK):
        world, said = live(plan_of(seed))
        callbacks += world.loop.callbacks
        if said:
            broken.append(seed)
    return broken, callbacks
