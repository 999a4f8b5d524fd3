"""Statements on responses and their trees."""

from __future__ import annotations

from sqlalchemy import BindParameter, bindparam, delete, exists, func, insert, select, update

from gateway.store.sql.tables import responses, trees
from gateway.store.sql.upserts import upserts

_r, _t = responses.c, trees.c
_id: BindParameter[str] = bindparam("b_id")
_owner: BindParameter[str] = bindparam("b_owner")

FIND = select(_r.previous, _r.status, _r.input, _r.object, _r.log, _r.runner, _r.tree).where(
    _r.id == _id, _r.owner == _owner
)
TREE = select(_r.tree).where(_r.id == _id, _r.owner == _owner)
INSERT = insert(responses)
PUT = upserts(responses, "id")
USE = upserts(trees, "id")
USE_TREE_OF = (
    update(trees).where(_t.id == select(_r.tree).where(_r.id == _id).scalar_subquery()).values(used=bindparam("b_used"))
)
TOUCH = update(trees).where(_t.id == _id, _t.used < bindparam("b_before")).values(used=bindparam("b_used"))
SETTLE = (
    update(responses)
    .where(_r.id == _id, _r.status.in_(bindparam("b_open", expanding=True)))
    .values(
        status=bindparam("b_status"),
        object=bindparam("b_object"),
        log=bindparam("b_log"),
        size=func.length(_r.input) + bindparam("b_size"),
    )
)

_start = select(_r.id, _r.previous, bindparam("b_zero", 0).label("depth")).where(_r.id == _id, _r.owner == _owner)
_chain = _start.cte("chain", recursive=True)
_chain = _chain.union_all(
    select(_r.id, _r.previous, _chain.c.depth + 1).where(
        _r.id == _chain.c.previous, _r.owner == _owner, _chain.c.depth < bindparam("b_limit")
    )
)
_linked = _chain.join(responses, _r.id == _chain.c.id)
LINKS = (
    select(_r.id, _r.previous, _r.tree, func.length(_r.input) + func.length(_r.object))
    .select_from(_linked)
    .order_by(_chain.c.depth)
)
ROWS = (
    select(_r.id, _r.previous, _r.status, _r.runner, _r.input, _r.object)
    .select_from(_linked)
    .order_by(_chain.c.depth.desc())
)

UNUSED = (
    select(_r.id, _r.tree, _r.status, _r.runner)
    .select_from(trees.join(responses, _r.tree == _t.id))
    .where(_t.used < bindparam("b_before"))
)
HELD = select(_r.owner, func.count(), func.sum(_r.size)).group_by(_r.owner)
# Along the index of one owner's trees: a full store evicts with every answer, and would sort all that it has each time.
OLDEST = (
    select(_r.id, _r.tree, _r.size, _r.status, _r.runner)
    .select_from(trees.join(responses, _r.tree == _t.id))
    .where(_t.owner == _owner)
    .order_by(_t.used, _r.number)
    .limit(bindparam("b_count"))
    .offset(bindparam("b_skip"))
)
DELETE = delete(responses).where(_r.id == _id)
DELETE_TREE = delete(trees).where(_t.id == _id, ~exists().where(_r.tree == _t.id))
