"""A shorter plan that breaks the same promise: who and what is not needed for it is left out, one after the other."""

from __future__ import annotations

from msgspec import structs

from tests.simulation.plan import Plan
from tests.simulation.world import World, live

TRIES = 400


def shrunk(plan: Plan, world: World, said: str) -> tuple[Plan, World, str]:
    """The shortest that is found within some hundred tries. The order of callbacks changes with each, so that is luck."""
    tries = 0
    size = max(len(plan.acts) // 2, 1)
    while tries < TRIES:
        place, better = 0, False
        while place < len(plan.acts) and tries < TRIES:
            tries += 1
            shorter = structs.replace(plan, acts=plan.acts[:place] + plan.acts[place + size :])
            other, told = live(shorter)
            if told and _kind(told) == _kind(said):
                plan, world, said, better = shorter, other, told, True
            else:
                place += size
        if size == 1 and not better:
            break
        size = max(size // 2, 1)
    return plan, world, said


def _kind(said: str) -> str:
    """A complaint without its names and figures."""
    return " ".join(word for word in said.splitlines()[0].split() if word.isalpha())
