"""How long it takes: what past jobs of a model took for a step of a megapixel, and what is still before one."""

from __future__ import annotations

from canonical.painting import Paint
from gateway.store.line import Line, Placed

UNKNOWN = 10.0
"""Seconds after which to ask again where nothing is known yet."""
LONGEST = 3600.0


def cost(request: Paint) -> float:
    """Steps times megapixels of all its pictures: what painting takes is in proportion to it."""
    part = 1.0 if request.image is None or request.strength is None else request.strength
    pixels = (request.width or 0) * (request.height or 0) / 1e6
    return (request.steps or 0) * pixels * request.n * part


def until_done(line: Line, id: str, *, slots: int, now: float) -> tuple[int, float | None]:
    """How many jobs are before one, and seconds until it is done; None: nothing is known of its model, or of one before it."""
    for job in line.running:
        if job.id == id:
            return 0, _left(line, job, now)
    at = next((index for index, job in enumerate(line.waiting) if job.id == id), None)
    if at is None:
        return 0, None
    before = [_left(line, job, now) for job in line.running]
    before += [_left(line, job, now) for job in line.waiting[:at]]
    own = _left(line, line.waiting[at], now)
    if own is None or None in before:
        return at, None
    return at, sum(one for one in before if one is not None) / max(1, slots, len(line.running)) + own


def until_room(line: Line, *, now: float) -> float:
    """Seconds until one of those that wait is begun, as far as can be told."""
    known = [left for job in line.running if (left := _left(line, job, now)) is not None]
    soonest = min(known, default=UNKNOWN)
    return min(max(1.0, soonest), LONGEST)


def _left(line: Line, job: Placed, now: float) -> float | None:
    speed = _speed(line, job.model, now)
    return None if speed is None else speed * _part(job, job.total - job.done)


def _speed(line: Line, model: str, now: float) -> float | None:
    """Seconds for a step of a megapixel: as past jobs took, or less where one that runs shows it, which may have waited for its model."""
    known = [line.speeds[model]] if model in line.speeds else []
    known += [
        max(0.0, now - job.started) / part
        for job in line.running
        if job.model == model and job.started and job.done and (part := _part(job, job.done))
    ]
    return min(known, default=None)


def _part(job: Placed, steps: int) -> float:
    """What so many of its steps cost."""
    return job.cost * steps / job.total if job.total else job.cost
