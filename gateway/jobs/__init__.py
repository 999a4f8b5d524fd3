"""Pictures as jobs: queued, running step by step, and then done, failed or cancelled. All image APIs are views of these."""

from __future__ import annotations

from gateway.jobs.job import Job, Queue, Result, State
from gateway.jobs.jobs import Jobs

__all__ = ("Job", "Jobs", "Queue", "Result", "State")
