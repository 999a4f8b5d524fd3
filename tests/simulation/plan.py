"""What happens in one simulation, as data drawn from a seed: models, rules, and who comes when and wants what."""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct

from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.residents import Rules, Terms
from gateway.room import Budget

GRID = (0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
SMALL = (0.0, 0.01, 0.1, 0.5, 1.0, 3.0)
KEPT = (-1.0, 0.0, 0.5, 2.0, 10.0)


class Kind(Struct, frozen=True):
    """One model of the plan."""

    name: str
    ram: int
    vram: int
    mapped: int
    slots: int
    terms: Terms
    weigh: float
    load: float
    abort: float
    close: float
    deaf: bool
    """It finishes loading although it is told to stop."""


class Act(Struct, frozen=True):
    """Something that happens at a time: a request (with its length, and perhaps when its client leaves), or an order."""

    at: float
    kind: Literal["ask", "unload", "clear", "retire", "close"]
    model: int = 0
    hold: float = 0.0
    leave: float | None = None
    options: LoadOptions = AS_CONFIGURED
    keep_alive: float | None = None
    tenant: str = ""


class Plan(Struct, frozen=True):
    """All of it. ``failures``: what the loads of a model end with, one after the other; None: well."""

    seed: int
    kinds: tuple[Kind, ...]
    rules: Rules
    acts: tuple[Act, ...]
    failures: tuple[tuple[str | None, ...], ...]
    outside: int | None
    """Bytes that others hold of the machine, which has twice the budget; None: nothing is measured."""


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance = random.Random(seed)
    draw, choice = chance.random, chance.choice
    count = choice((1, 2, 2, 3, 4, 5))
    ram = choice((4, 6, 10, 10**6))
    budget = Budget(ram=ram, vram=choice((4, 10**6)), models=choice((1, 2, 3, 10**6)))
    rules = Rules(
        waiting=choice((2, 5, 50)),
        waiting_time=choice((2.0, 20.0, 200.0)),
        switch_after=choice((0.5, 2.0, 10.0)),
        linger=choice((0.0, 0.2)),
        abandoned=choice((0.0, 1.0, 5.0)),
        budget=budget,
    )
    odd = draw() < 0.4  # pins and models that must be alone
    kinds = tuple(
        Kind(
            name=f"m{number}",
            ram=choice((1, 2, 3, 4, 5)),
            vram=choice((0, 0, 1, 3)),
            mapped=choice((0, 1)),
            slots=choice((0, 1, 1, 2, 4)),
            terms=Terms(
                keep_alive=choice(KEPT),
                pinned=odd and draw() < 0.3,
                exclusive=odd and draw() < 0.3,
                options=choice(("honour", "honour", "honour", "refuse", "ignore")),
                local=draw() < 0.95,
            ),
            weigh=choice((0.0, 0.0, 0.1)),
            load=choice(SMALL),
            abort=choice((0.0, 0.0, 0.2, 2.0)),
            close=choice(SMALL),
            deaf=draw() < 0.1,
        )
        for number in range(count)
    )
    wishing = draw() < 0.4
    wishes = (
        AS_CONFIGURED,
        LoadOptions(context=2048),
        LoadOptions(context=8192),
        LoadOptions(context=16384),
        LoadOptions(threads=2),
        LoadOptions(threads=3),
        LoadOptions(context=8192, threads=2),
    )
    pace = choice((0.01, 0.1, 0.5, 2.0))
    tenants = choice((("",), ("",), ("a", "b"), ("a", "a", "a", "b", "c")))
    hurry = choice((0.0, 0.1, 0.4))
    hold = choice(((0.0, 0.1), (0.1, 1.0), (0.0, 0.3, 5.0)))
    acts: list[Act] = []
    at = 0.0
    for _ in range(choice((3, 8, 20, 40, 60))):
        if draw() < 0.7:
            at += round(draw() * 10) * pace / 10  # on a grid, so that much happens at the same instant
        acts.append(
            Act(
                at,
                "ask",
                int(draw() * draw() * count),
                choice(hold),
                choice(GRID) if draw() < hurry else None,
                choice(wishes) if wishing else AS_CONFIGURED,
                choice(KEPT) if draw() < 0.2 else None,
                choice(tenants),
            )
        )
        if draw() < 0.05:
            acts.append(Act(at, choice(("unload", "clear", "retire")), int(draw() * count)))
    if draw() < 0.2:
        acts.append(Act(draw() * at, "close"))
    failing = choice((0.0, 0.0, 0.2))
    failures = tuple(
        tuple(choice(("backend", "memory", "missing", "defect")) if draw() < failing else None for _ in range(6))
        for _ in kinds
    )
    return Plan(seed, kinds, rules, tuple(acts), failures, choice((None, None, 0, 3, min(ram, 10))))
