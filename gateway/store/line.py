"""Who is next among those who wait: priority first, then keys in turn, then age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct


class Placed(Struct, frozen=True, kw_only=True):
    """What has to be known of a job to find its place."""

    number: int
    """The order in which they came."""
    id: str
    owner: str
    state: str
    priority: int
    model: str
    cost: float
    """Steps times megapixels."""
    started: float
    done: int
    total: int
    turn: int
    """When its owner had a job begun last, by a count of all; 0: never."""


class Line(Struct, frozen=True):
    """All jobs that are not over, and how long models take."""

    running: list[Placed]
    waiting: list[Placed]
    """In the order in which they will be begun."""
    speeds: dict[str, float]
    """By model: seconds for a step of a megapixel."""


def in_order(open: Sequence[Placed]) -> list[Placed]:
    """Those that wait, in the order in which they will be begun if no more come.

    An owner's second job waits for everybody's first, where one that runs counts too; among equals the one goes first
    whose owner was served longest ago.
    """
    ahead = Counter(job.owner for job in open if job.state == "running")
    waiting = sorted((job for job in open if job.state == "queued"), key=lambda job: (-job.priority, job.number))
    placed: list[tuple[tuple[int, int, int, int], Placed]] = []
    for job in waiting:
        placed.append(((-job.priority, ahead[job.owner], job.turn, job.number), job))
        ahead[job.owner] += 1
    return [job for _, job in sorted(placed, key=lambda one: one[0])]
