"""``make simulate``: the real pool on a clock that jumps, in as many lives as asked for; the first broken promise is told.

``python -m tests.simulation [SEEDS] [--first SEED] [--one SEED]``
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.simulation.many import CHUNK, tries
from tests.simulation.plan import Plan, plan_of
from tests.simulation.shrink import shrunk
from tests.simulation.world import World, live


def told(plan: Plan, world: World, said: str) -> str:
    """The story of a life, for people."""
    lines = [f"seed {plan.seed}: {said}", "", f"rules: {plan.rules}"]
    lines += [f"{kind}" for kind in plan.kinds]
    lines += ["", *(f"{at:10.3f}  {text}" for at, text in world.story)]
    lines += ["", f"again: .venv/bin/python -m tests.simulation --one {plan.seed}"]
    return "\n".join(lines)


def tell(seed: int, *, whole: bool = False) -> bool:
    """Print the story of a seed, as short as it can be made; whether a promise is broken."""
    plan = plan_of(seed)
    world, said = live(plan)
    if said and not whole:
        plan, world, said = shrunk(plan, world, said)
    print(told(plan, world, said or "all promises are kept"))
    return bool(said)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("seeds", nargs="?", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--one", type=int, help="tell the story of one seed")
    parser.add_argument("--whole", action="store_true", help="and leave nothing out")
    asked = parser.parse_args()
    if asked.one is not None:
        return int(tell(asked.one, whole=asked.whole))
    began = time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunks = range(asked.first, asked.first + asked.seeds, CHUNK)
    broken: list[int] = []
    callbacks = 0
    with multiprocessing.get_context("spawn").Pool(cores) as processes:
        for found, count in processes.imap_unordered(tries, chunks):
            broken += found
            callbacks += count
    spent = time.monotonic() - began
    print(f"{len(chunks) * CHUNK} lives of the pool, {callbacks} callbacks, {spent:.0f} s on {cores} cores")
    if broken:
        print(f"{len(broken)} broke a promise: {sorted(broken)[:20]}\n")
        tell(min(broken))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
