"""Statements on sessions."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, func, insert, select, update

from gateway.store.sql.tables import sessions

_s = sessions.c
_mine = (_s.owner == bindparam("b_owner"), _s.id == bindparam("b_id"))

FIND = select(_s.model, _s.used).where(*_mine)
UPDATE = update(sessions).where(*_mine).values(model=bindparam("b_model"), used=bindparam("b_used"))
INSERT = insert(sessions).values(
    owner=bindparam("b_owner"), id=bindparam("b_id"), model=bindparam("b_model"), used=bindparam("b_used")
)
TOUCH = update(sessions).where(*_mine, _s.used < bindparam("b_used")).values(used=bindparam("b_used"))
DELETE = delete(sessions).where(*_mine)
DELETE_UNUSED = delete(sessions).where(_s.used < bindparam("b_before"))
HELD = select(_s.owner, func.count()).group_by(_s.owner)
OLDEST = (
    select(_s.id)
    .where(_s.owner == bindparam("b_owner"))
    .order_by(_s.used)
    .limit(bindparam("b_count"))
    .offset(bindparam("b_skip"))
)
