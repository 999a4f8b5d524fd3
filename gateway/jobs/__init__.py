"""Pictures as jobs: queued, running step by step, and then done, failed or cancelled. All image APIs are views of these.

* what APIs ask: jobs (submit, watch, cancel ...), job (one as it is seen), rows (from the store and back), live (what is known sooner than by its row), estimate;
* who works: work (one job, whoever has it), loop (takes jobs from the store, in this process) with store_queue (SAQ's queue over
  the store's table), over_redis/ (the same over a Redis server), worker_process (``dragoman worker``);
* where pictures are: files (a folder), s3 (a bucket).

The rows are in ``gateway.store``, the painting itself in ``gateway.painting``.
"""

from __future__ import annotations

from gateway.jobs.job import Job, Queue, Result, State
from gateway.jobs.jobs import Jobs

__all__ = ("Job", "Jobs", "Queue", "Result", "State")
