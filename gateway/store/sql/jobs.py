"""Statements on jobs, their files and turns."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, false, func, insert, select, true, update

from gateway.store.sql.tables import job_files, job_turns, jobs
from gateway.store.sql.upserts import upserts

_j, _f, _t = jobs.c, job_files.c, job_turns.c
_id = _j.id == bindparam("b_id")
_job = _f.job == bindparam("b_id")
_owner = _j.owner == bindparam("b_owner")
OPEN = ("queued", "running")
_COLUMNS = (
    *(_j.id, _j.owner, _j.state, _j.priority, _j.dialect, _j.model, _j.cost, _j.created, _j.started, _j.finished),
    *(_j.done, _j.total, _j.attempt, _j.runner, _j.beat, _j.waiter, _j.stopping, _j.error, _j.code, _j.status),
    *(_j.request, _j.inputs, _j.results),
)
_held = (_id, _j.state == "running", _j.runner == bindparam("b_runner"), _j.attempt == bindparam("b_attempt"))
"""Whose claim still stands."""

ADD = insert(jobs)
FIND = select(*_COLUMNS).where(_id)
SEVERAL = select(*_COLUMNS).where(_j.id.in_(bindparam("b_ids", expanding=True)))
NUMBER = select(_j.number).where(_id, _owner)
PAGE = (
    select(*_COLUMNS)
    .where(_owner, _j.number < bindparam("b_before"))
    .order_by(_j.number.desc())
    .limit(bindparam("b_limit"))
)
PAGE_IN = PAGE.where(_j.state.in_(bindparam("b_states", expanding=True)))
LINE = (
    select(
        *(_j.number, _j.id, _j.owner, _j.state, _j.priority, _j.model, _j.cost, _j.started, _j.done, _j.total),
        func.coalesce(_t.turn, 0),
    )
    .select_from(jobs.outerjoin(job_turns, _t.owner == _j.owner))
    .where(_j.state.in_(OPEN))
    .order_by(_j.number)
)
COUNTS = select(_j.state, func.count()).where(_j.state.in_(OPEN)).group_by(_j.state)
MINE = select(func.count()).where(_j.state == "queued", _owner)
SPEED = (
    select(_j.cost, _j.finished - _j.started)
    .where(_j.model == bindparam("b_model"), _j.state == "done")
    .order_by(_j.finished.desc())
    .limit(bindparam("b_count"))
)

CLAIM = (
    update(jobs)
    .where(_id)
    .values(
        state="running",
        attempt=_j.attempt + 1,
        runner=bindparam("b_runner"),
        beat=bindparam("b_now"),
        started=bindparam("b_now"),
    )
)
ADOPT = update(jobs).where(_id, _j.state == "running").values(runner=bindparam("b_runner"), beat=bindparam("b_now"))
LAST_TURN = select(func.coalesce(func.max(_t.turn), 0))
TURN = upserts(job_turns, "owner")
BEAT = update(jobs).where(*_held).values(beat=bindparam("b_now"))
PROGRESS = update(jobs).where(*_held).values(done=bindparam("b_done"), total=bindparam("b_total"))
HELD = select(_j.owner).where(*_held)
PICTURE = (
    update(jobs)
    .where(*_held)
    .values(done=bindparam("b_done"), results=bindparam("b_results"), size=_j.size + bindparam("b_more"))
)
SETTLE = (
    update(jobs)
    .where(_id, _j.state.in_(OPEN))
    .values(
        state=bindparam("b_state"),
        finished=bindparam("b_now"),
        done=bindparam("b_done"),
        error=bindparam("b_error"),
        code=bindparam("b_code"),
        status=bindparam("b_status"),
        runner="",
        waiter="",
        stopping=False,
    )
)
GIVE_BACK = (
    update(jobs)
    .where(_id, _j.state == "running")
    .values(state="queued", started=0.0, runner="", attempt=bindparam("b_attempt"), done=bindparam("b_done"))
)
STOP = update(jobs).where(_id, _j.state == "running").values(stopping=True)
RUNNING = select(*_COLUMNS).where(_j.state == "running")
WAITED = select(*_COLUMNS).where(_j.state.in_(OPEN), _j.waiter != "")

FILE = insert(job_files)
FILES = select(_f.name).where(_job)
SHARED = select(_f.name).where(_f.name.in_(bindparam("b_names", expanding=True)))
OWNER_OF = select(_f.owner).where(_f.name == bindparam("b_name"), _f.input == false())
BY_DIGEST = select(_f.name, _f.job, _f.input).where(
    _f.owner == bindparam("b_owner"), _f.digest == bindparam("b_digest")
)
INPUT_BY_DIGEST = select(_f.name).where(
    _f.owner == bindparam("b_owner"), _f.digest == bindparam("b_digest"), _f.input == true()
)
DROP_FILES = delete(job_files).where(_job)
DELETE = delete(jobs).where(_id)

UNUSED = select(_j.id).where(_j.state.not_in(OPEN), _j.finished < bindparam("b_before"))
KEPT = select(_j.owner, func.count(), func.sum(_j.size)).group_by(_j.owner)
OLDEST = (
    select(_j.id, _j.size)
    .where(_owner, _j.state.not_in(OPEN), _j.finished < bindparam("b_before"))
    .order_by(_j.finished, _j.number)
    .limit(bindparam("b_count"))
    .offset(bindparam("b_skip"))
)
