"""Sessions: what a client that comes back with the same id finds again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from canonical.errors import InvalidRequest, StorageFailed
from gateway.store.database import Database
from gateway.store.evicting import FRESH, PAGE, Bounds, pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

ID = 256
"""Characters of an id."""


class Session(Struct, frozen=True, kw_only=True):
    """One client's state."""

    id: str
    owner: str
    model: str = ""
    """The model it works with; empty: none yet."""


class Sessions:
    """Those unused for ``keep`` seconds go (negative: none); beyond ``limit``, as in ``beyond``."""

    def __init__(self, database: Database, *, keep: float, limit: int, clock: Callable[[], float]) -> None:
        self._database = database
        self._bounds = Bounds(keep=keep, limit=limit)
        self._clock = clock

    async def get(self, id: str, *, owner: str) -> Session | None:
        """A session; None where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: Connection) -> Session | None:
            from gateway.store.sql import sessions as sql

            found = db.execute(sql.FIND, {"b_id": id, "b_owner": owner}).first()
            if found is None:
                return None
            model, used = found
            self._touch(id, owner, used)
            return Session(id=id, owner=owner, model=model)

        return await self._database.read(work) if self._database.exists else None

    async def put(self, session: Session) -> None:
        """Keep ``session`` as it is now, durably.

        Raises:
            InvalidRequest: its id is too long.
            StorageFailed: it cannot be kept.
        """
        if len(session.id) > ID:
            raise InvalidRequest(f"the id of a session has at most {ID} characters")
        if not self._bounds.limit:
            raise StorageFailed("this gateway keeps no sessions: `sessions.limit` is 0")

        def work(db: Connection) -> None:
            from gateway.store.sql import sessions as sql

            now = self._clock()
            what = {"b_id": session.id, "b_owner": session.owner, "b_model": session.model, "b_used": now}
            if not db.execute(sql.UPDATE, what).rowcount:
                db.execute(sql.INSERT, what)
                if self._bounds.must_look(now, count=1):
                    self._evict(db, now)

        await self._database.write(work)

    # In the store's threads

    def _touch(self, id: str, owner: str, used: float) -> None:
        now = self._clock()
        if now - used <= FRESH:
            return

        def work(db: Connection) -> None:
            from gateway.store.sql import sessions as sql

            db.execute(sql.TOUCH, {"b_id": id, "b_owner": owner, "b_used": now})

        self._database.later(work)

    def _evict(self, db: Connection, now: float) -> None:
        from gateway.store.sql import sessions as sql

        if self._bounds.keep >= 0:
            db.execute(sql.DELETE_UNUSED, {"b_before": now - self._bounds.keep})
        held = {owner: (count, 0) for owner, count in db.execute(sql.HELD)}

        def oldest(owner: str) -> Iterator[tuple[dict[str, str], int]]:
            what = {"b_owner": owner, "b_count": PAGE}
            for (id,) in pages(lambda skip: db.execute(sql.OLDEST, {**what, "b_skip": skip}).all()):
                yield {"b_id": id, "b_owner": owner}, 0

        if found := self._bounds.gone(held, oldest, now):
            db.execute(sql.DELETE, found)
