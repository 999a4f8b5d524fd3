"""Which models fit into memory together, and which must go so that another fits. Pure: amounts come in, a choice comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from backends.base import Need


class Budget(Struct, frozen=True, kw_only=True):
    """What the models of this machine may take together: bytes, and how many they may be."""

    ram: float = math.inf
    vram: float = math.inf
    models: float = math.inf


class Free(Struct, frozen=True, kw_only=True):
    """What is free on this machine now, as measured. Files' pages in memory count as free, as the system says."""

    ram: float = math.inf
    vram: float = math.inf


class Occupant(Protocol):
    """What takes room."""

    need: Need
    exclusive: bool
    """It is alone in memory."""


T = TypeVar("T", bound=Occupant)


def fits(occupants: Iterable[Occupant], budget: Budget) -> bool:
    """Whether all of them can be in memory at once."""
    ram = vram = count = 0
    alone = False
    for one in occupants:
        ram += one.need.ram
        vram += one.need.vram
        count += 1
        alone = alone or one.exclusive
    return ram <= budget.ram and vram <= budget.vram and count <= budget.models and not (alone and count > 1)


def room_for(wanted: Occupant, kept: Sequence[Occupant], movable: Sequence[T], budget: Budget) -> list[T] | None:
    """Which of ``movable`` go, so that ``wanted`` fits beside ``kept`` and the others; None: not even if all went.

    The first of ``movable`` go first; none goes whose going changes nothing.
    """
    if not fits((wanted, *kept), budget):
        return None
    staying = list(movable)
    going: list[T] = []
    while not fits((wanted, *kept, *staying), budget):
        going.append(staying.pop(0))
    for one in going[-2::-1]:  # the last was the one that made it fit
        if fits((wanted, *kept, *staying, one), budget):
            staying.append(one)
            going.remove(one)
    return going
