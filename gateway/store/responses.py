"""Responses, each linked to the one before it, and each the property of the key it came with.

Responses that go on from one another are a tree, whichever way they branch. Uses are noted by tree: an answer is not
forgotten while one that goes on from it is in use, and a turn of a long conversation costs no more than one of a short.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from canonical.errors import InvalidRequest, NotFound, StorageFailed
from gateway.store.database import Database
from gateway.store.evicting import FRESH, PAGE, Bounds, pages

if TYPE_CHECKING:
    from sqlalchemy import Connection

PROBE = 64 * 1024
"""Bytes that must find room before a store in trouble is trusted again."""

UNFINISHED = ("queued", "in_progress")
ABANDONED = "abandoned"
"""The status of an answer whose gateway died over it."""


class Row(Struct, frozen=True, kw_only=True):
    """One response, as it is kept. What its bytes mean is the dialect's business."""

    id: str
    owner: str
    previous: str | None = None
    status: str
    input: bytes
    object: bytes
    log: bytes = b""
    """The frames of its stream, where they are kept."""


class Responses:
    """All responses of one database.

    Those unused for ``keep`` seconds go (negative: none). Beyond ``limit`` responses, or ``size`` bytes of them, those go
    that were used longest ago: of the owner who has most, so that nobody drives out what others keep.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep: float,
        limit: int,
        size: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._bounds = Bounds(keep=keep, limit=limit, size=size)
        self._clock = clock

    async def ready(self) -> None:
        """Raises StorageFailed where something is known to be wrong, and still is."""
        if not self._bounds.limit:
            raise StorageFailed("this gateway keeps no responses: `responses.limit` is 0")
        if self._database.trouble is not None:
            await self._database.write(_probe)

    async def put(self, row: Row) -> None:
        """Keep ``row``, durably; its whole tree counts as used. Raises StorageFailed."""

        def work(db: Connection) -> None:
            from gateway.store.sql import responses as sql

            log = _packed(row.log)
            size = len(row.input) + len(row.object) + len(log)
            if size > self._bounds.size:
                raise StorageFailed(f"a response of {size} bytes is more than is kept of all: `responses.size`")
            runner = ""
            if row.status in UNFINISHED:
                self._database.alive.show()
                runner = self._database.alive.token
            now = self._clock()
            tree = row.previous and db.execute(sql.TREE, {"b_id": row.previous, "b_owner": row.owner}).scalar()
            tree = tree or row.id
            values = {
                "id": row.id,
                "owner": row.owner,
                "previous": row.previous,
                "tree": tree,
                "status": row.status,
                "runner": runner,
                "input": row.input,
                "object": row.object,
                "log": log,
                "size": size,
            }
            db.execute(sql.PUT[db.dialect.name], values)
            db.execute(sql.USE[db.dialect.name], {"id": tree, "owner": row.owner, "used": now})
            if self._bounds.must_look(now, count=1, size=size):
                self._evict(db, now)

        await self._database.write(work)

    async def settle(self, id: str, *, status: str, object: bytes, log: bytes = b"") -> bool:
        """Note how an unfinished response ended. False: it is gone, or has ended otherwise. Raises StorageFailed."""

        def work(db: Connection) -> bool:
            from gateway.store.sql import responses as sql

            packed = _packed(log)
            done = db.execute(
                sql.SETTLE,
                {
                    "b_id": id,
                    "b_open": UNFINISHED,
                    "b_status": status,
                    "b_object": object,
                    "b_log": packed,
                    "b_size": len(object) + len(packed),
                },
            )
            if done.rowcount:
                now = self._clock()
                db.execute(sql.USE_TREE_OF, {"b_id": id, "b_used": now})
                if self._bounds.must_look(now, size=len(object) + len(packed)):
                    self._evict(db, now)
            return done.rowcount > 0

        return await self._database.write(work)

    async def get(self, id: str, *, owner: str) -> Row | None:
        """One response; None where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: Connection) -> Row | None:
            from gateway.store.sql import responses as sql

            found = db.execute(sql.FIND, {"b_id": id, "b_owner": owner}).first()
            if found is None:
                return None
            previous, status, input, object, log, runner, tree = found
            status = self._true_status(db, status, runner)
            self._touch(tree)
            log = zlib.decompress(log) if log else b""
            return Row(id=id, owner=owner, previous=previous, status=status, input=input, object=object, log=log)

        return await self._database.read(work) if self._database.exists else None

    async def chain(self, id: str, *, owner: str, limit: int, size: int) -> list[Row]:
        """The response and all that it goes on from, the oldest first. Empty: there is none of this id.

        Raises:
            InvalidRequest: there are more than ``limit`` of them, or they have more than ``size`` bytes.
            NotFound: one in the middle is gone.
            StorageFailed: the store cannot be read.
        """

        def work(db: Connection) -> list[Row]:
            from gateway.store.sql import responses as sql

            what = {"b_id": id, "b_owner": owner, "b_limit": limit}
            links = db.execute(sql.LINKS, what).all()
            if not links:
                return []
            if len(links) > limit:
                raise InvalidRequest(f"a conversation may have at most {limit} responses")
            if sum(link[3] for link in links) > size:
                raise InvalidRequest(f"a conversation may have at most {size} bytes")
            rows = db.execute(sql.ROWS, what).all() if links[-1][1] is None else []
            if len(rows) < len(links):  # something was deleted, a moment ago perhaps
                raise NotFound(f"response {links[-1][1]!r}, which {id!r} goes on from, has been deleted")
            self._touch(links[0][2])
            return [
                Row(
                    id=one,
                    owner=owner,
                    previous=previous,
                    status=self._true_status(db, status, runner),
                    input=input,
                    object=object,
                )
                for one, previous, status, runner, input, object in rows
            ]

        return await self._database.read(work) if self._database.exists else []

    async def delete(self, id: str, *, owner: str) -> bool:
        """Forget one response; False where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: Connection) -> bool:
            from gateway.store.sql import responses as sql

            tree = db.execute(sql.TREE, {"b_id": id, "b_owner": owner}).scalar()
            if tree is not None:
                _remove(db, [(id, tree)])
            return tree is not None

        return self._database.exists and await self._database.write(work)

    # In the store's threads

    def _evict(self, db: Connection, now: float) -> None:
        from gateway.store.sql import responses as sql

        if self._bounds.keep >= 0:
            unused = db.execute(sql.UNUSED, {"b_before": now - self._bounds.keep}).all()
            _remove(db, [(id, tree) for id, tree, status, runner in unused if not self._runs(db, status, runner)])

        def oldest(owner: str) -> Iterator[tuple[tuple[str, str], int]]:
            what = {"b_owner": owner, "b_count": PAGE}
            found = pages(lambda skip: db.execute(sql.OLDEST, {**what, "b_skip": skip}).all())
            for id, tree, size, status, runner in found:
                if not self._runs(db, status, runner):
                    yield (id, tree), size

        held = {owner: (count, int(size)) for owner, count, size in db.execute(sql.HELD)}
        _remove(db, self._bounds.gone(held, oldest, now))

    def _runs(self, db: Connection, status: str, runner: str) -> bool:
        return status in UNFINISHED and self._database.alive.sees(runner, db)

    def _true_status(self, db: Connection, status: str, runner: str) -> str:
        return ABANDONED if status in UNFINISHED and not self._runs(db, status, runner) else status

    def _touch(self, tree: str) -> None:
        now = self._clock()

        def work(db: Connection) -> None:
            from gateway.store.sql import responses as sql

            db.execute(sql.TOUCH, {"b_id": tree, "b_used": now, "b_before": now - FRESH})

        self._database.later(work)


def _remove(db: Connection, found: Sequence[tuple[str, str]]) -> None:
    """Forget responses, each given with its tree, and trees that are empty then."""
    from gateway.store.sql import responses as sql

    if found:
        db.execute(sql.DELETE, [{"b_id": id} for id, _ in found])
        db.execute(sql.DELETE_TREE, [{"b_id": tree} for tree in {tree for _, tree in found}])


def _probe(db: Connection) -> None:
    """Write and take away as much as most responses need."""
    from gateway.store.sql import responses as sql

    words = dict.fromkeys(("id", "owner", "tree", "status", "runner"), "")
    db.execute(sql.INSERT, {**words, "previous": None, "input": bytes(PROBE), "object": b"", "log": b"", "size": 0})
    db.execute(sql.DELETE, {"b_id": ""})


def _packed(log: bytes) -> bytes:
    return zlib.compress(log, 3) if log else b""
