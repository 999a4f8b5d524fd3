"""From rows of the store to what this package speaks of, and back."""

from __future__ import annotations

import msgspec

from canonical.painting import Paint
from gateway.jobs.job import Job, Result, State
from gateway.jobs.work import Input, Order, Outcome
from gateway.store.job_row import Ending, JobRow


def told(row: JobRow) -> Job:
    """A job, as its row has it."""
    names = ("id", "owner", "dialect", "created", "started", "finished", "done", "total", "error", "code", "status")
    return Job(
        **{name: getattr(row, name) for name in names},
        state=msgspec.convert(row.state, State),
        request=msgspec.json.decode(row.request, type=Paint),
        results=msgspec.json.decode(row.results, type=tuple[Result, ...]),
    )


def order_of(row: JobRow) -> Order:
    """What whoever works on it is told."""
    return Order(
        request=msgspec.json.decode(row.request, type=Paint),
        inputs=msgspec.json.decode(row.inputs, type=dict[str, Input]),
        results=msgspec.json.decode(row.results, type=tuple[Result, ...]),
    )


def ending_of(outcome: Outcome) -> Ending:
    """How the row of a job ends that nobody has cancelled."""
    if outcome.error or outcome.code:
        return Ending(state="failed", error=outcome.error, code=outcome.code, status=outcome.status)
    return Ending(state="done")
