"""Statements on conversations and their turns."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, func, insert, select, update

from gateway.store.sql.tables import conversations, turns

_c, _t = conversations.c, turns.c
_mine = (_c.owner == bindparam("b_owner"), _c.id == bindparam("b_id"))
_this = _t.conversation == bindparam("b_conversation")
_columns = (
    _t.number.label("turn"),
    *(_t.prompt, _t.model, _t.state, _t.runner, _t.asked, _t.answer, _t.answered, _t.error, _t.cut, _t.since),
)
_open = _t.state.in_(bindparam("b_open", expanding=True))

FIND = select(_c.number).where(*_mine)
FIND_LAST = select(_c.number, select(func.max(_t.number)).where(_t.conversation == _c.number).scalar_subquery()).where(
    *_mine
)
START = insert(conversations).values(owner=bindparam("b_owner"), id=bindparam("b_id"), used=bindparam("b_used"), size=0)
TOUCH = (
    update(conversations)
    .where(_c.number == bindparam("b_conversation"), _c.used < bindparam("b_before"))
    .values(used=bindparam("b_used"))
)
GROW = (
    update(conversations)
    .where(_c.number == bindparam("b_conversation"))
    .values(used=bindparam("b_used"), size=_c.size + bindparam("b_more"))
)
TURNS = (
    select(_c.number, _c.used, *_columns)
    .select_from(conversations.outerjoin(turns, _t.conversation == _c.number))
    .where(*_mine)
    .order_by(_t.number)
)
ASK = insert(turns)
UNANSWERED = select(_t.number, _t.state, _t.runner, _t.prompt == bindparam("b_prompt"), _t.answer).where(
    _this, _t.state != "answered"
)
FORGET = delete(turns).where(_this, _t.number == bindparam("b_number"))
BEFORE = select(_t.runner, _t.number).where(_this, _t.number < bindparam("b_number"), _open)
TAKE = (
    update(turns)
    .where(
        _this, _t.number == bindparam("b_number"), _t.runner == bindparam("b_runner"), _t.state == bindparam("b_from")
    )
    .values(state=bindparam("b_state"))
)
SETTLE = (
    update(turns)
    .where(_this, _t.number == bindparam("b_number"), _t.runner == bindparam("b_runner"), _open)
    .values(
        state=bindparam("b_state"),
        answer=bindparam("b_answer"),
        answered=bindparam("b_answered"),
        error=bindparam("b_error"),
        cut=bindparam("b_cut"),
        since=bindparam("b_since"),
    )
    .returning(*_columns)
)

RUNNERS = select(_t.runner).where(_this, _open).distinct()
UNUSED = select(_c.number).where(_c.used < bindparam("b_before"))
HELD = select(_c.owner, func.count(), func.sum(_c.size)).group_by(_c.owner)
OLDEST = (
    select(_c.number, _c.size)
    .where(_c.owner == bindparam("b_owner"))
    .order_by(_c.used, _c.number)
    .limit(bindparam("b_count"))
    .offset(bindparam("b_skip"))
)
DELETE = delete(conversations).where(_c.number == bindparam("b_conversation"))
DELETE_TURNS = delete(turns).where(_this)
