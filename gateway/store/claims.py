"""What those who work on jobs say of them.

Each change of a state is one transaction in the one line of writers, so that no job is claimed twice and none ends twice. Who
works on a job holds a claim, its runner's token and the number of the attempt; what is said with a claim that no longer stands
is not heard. Whoever deletes rows is given the names of those files that nobody needs any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from gateway.store.database import Database
from gateway.store.evicting import FRESH, PAGE, Bounds, pages
from gateway.store.job_row import Ending, FileRow, JobRow
from gateway.store.line import Placed, in_order

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

SILENT = 300.0
"""Seconds without a sign of life after which a runner is thought dead although its process is not."""
LOST = "worker_died"
"""The code of a job that was begun as often as may be, and whose worker died each time."""


class Swept(Struct, frozen=True):
    """What was found of those who died: jobs that wait again, and jobs that are over."""

    again: list[str]
    over: list[str]


class Claims:
    """The half of ``JobRows`` that workers need. ``keep``, ``limit`` and ``size`` as those of ``Responses``: of jobs that are over."""

    def __init__(
        self, database: Database, *, keep: float, limit: int, size: int, clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self._database = database
        self._bounds = Bounds(keep=keep, limit=limit, size=size)

    @property
    def exists(self) -> bool:
        """Whether there can be any: looking for it makes nothing."""
        return self._database.exists

    @property
    def me(self) -> str:
        """How this process is called among those that share the database."""
        return self._database.alive.token

    async def claim(self) -> JobRow | None:
        """Begin the next job; None: none waits. Raises StorageFailed."""

        def work(db: Connection) -> JobRow | None:
            from gateway.store.sql import jobs as sql

            self._database.alive.show()
            waiting = in_order(placed(db))
            if not waiting:
                return None
            first = waiting[0]
            now = self.clock()
            db.execute(sql.CLAIM, {"b_id": first.id, "b_runner": self.me, "b_now": now})
            last: int = db.execute(sql.LAST_TURN).scalar_one()
            db.execute(sql.TURN[db.dialect.name], {"owner": first.owner, "turn": last + 1})
            return rows_of(db.execute(sql.FIND, {"b_id": first.id}))[0]

        return await self._database.write(work)

    def beat(self, claims: Collection[JobRow]) -> None:
        """Show that these are worked on."""
        held = [{"b_id": row.id, "b_runner": row.runner, "b_attempt": row.attempt} for row in claims]
        now = self.clock()

        def work(db: Connection) -> None:
            from gateway.store.sql import jobs as sql

            db.execute(sql.BEAT, [{**one, "b_now": now} for one in held])

        if held:
            self._database.later(work)

    def progress(self, claim: JobRow, *, done: int, total: int) -> None:
        """Note how far it is, for others than this process."""

        def work(db: Connection) -> None:
            from gateway.store.sql import jobs as sql

            db.execute(sql.PROGRESS, {**_claim(claim), "b_done": done, "b_total": total})

        self._database.later(work)

    async def picture(self, claim: JobRow, *, results: bytes, done: int, size: int, file: FileRow) -> bool:
        """Note a finished picture, durably. False: the claim does not stand any more. Raises StorageFailed."""

        def work(db: Connection) -> bool:
            from gateway.store.sql import jobs as sql

            what = {**_claim(claim), "b_results": results, "b_done": done, "b_more": size}
            if not db.execute(sql.PICTURE, what).rowcount:
                return False
            self._note(db, claim, [file])
            self._bounds.must_look(self.clock(), size=size)
            return True

        return await self._database.write(work)

    async def settle(self, claim: JobRow, ending: Ending, *, done: int = 0) -> list[str] | None:
        """End a job, durably; the names of files that nobody needs any more. None: the claim does not stand any more.

        Raises StorageFailed.
        """

        def work(db: Connection) -> list[str] | None:
            from gateway.store.sql import jobs as sql

            if db.execute(sql.HELD, _claim(claim)).first() is None:
                return None
            self._end(db, claim.id, ending, done)
            now = self.clock()
            return self._evicted(db, now) if self._bounds.must_look(now, count=1) else []

        return await self._database.write(work)

    async def give_back(self, claim: JobRow) -> str:
        """Let another one have it, as if it had not been begun; where a client of this gateway waits for it, it is over.

        What it is then; empty: the claim does not stand any more. Raises StorageFailed.
        """

        def work(db: Connection) -> str:
            from gateway.store.sql import jobs as sql

            if db.execute(sql.HELD, _claim(claim)).first() is None:
                return ""
            row = rows_of(db.execute(sql.FIND, {"b_id": claim.id}))[0]
            if row.waiter or row.stopping:
                self._end(db, row.id, Ending(state="cancelled"), row.done)
                return "cancelled"
            db.execute(sql.GIVE_BACK, {"b_id": row.id, "b_attempt": max(0, row.attempt - 1), "b_done": row.done})
            return "queued"

        return await self._database.write(work)

    async def sweep(self, *, tries: int, working: Collection[str] = ()) -> Swept:
        """Take care of jobs whose runner is dead, or whose client's gateway is. ``working``: what this process works on.

        Raises StorageFailed.
        """

        def work(db: Connection) -> Swept:
            from gateway.store.sql import jobs as sql

            swept = Swept([], [])
            for row in rows_of(db.execute(sql.RUNNING)):
                if row.id not in working and self._dead(db, row):
                    left = bool(row.waiter) and not self._database.alive.sees(row.waiter, db)
                    again = self._again(db, row, tries=tries, wanted=not left)
                    (swept.again if again else swept.over).append(row.id)
            swept.over.extend(self._unwaited(db))
            return swept

        return await self._database.write(work) if self.exists else Swept([], [])

    async def adopt(self) -> list[JobRow]:
        """Claims of gateways that are dead become ours, with their attempts: those who work on them are elsewhere.

        Raises StorageFailed.
        """

        def work(db: Connection) -> list[JobRow]:
            from gateway.store.sql import jobs as sql

            self._database.alive.show()
            self._unwaited(db)
            dead = [row for row in rows_of(db.execute(sql.RUNNING)) if self._dead(db, row)]
            for row in dead:
                db.execute(sql.ADOPT, {"b_id": row.id, "b_runner": self.me, "b_now": self.clock()})
            return [structs.replace(row, runner=self.me) for row in dead]

        return await self._database.write(work) if self.exists else []

    async def again(self, claim: JobRow, *, tries: int, begun: bool = True) -> bool:
        """Let another worker have it: the last one has died over it, or has not ``begun``. False: it is over, or not ours.

        Raises StorageFailed.
        """

        def work(db: Connection) -> bool:
            from gateway.store.sql import jobs as sql

            if db.execute(sql.HELD, _claim(claim)).first() is None:
                return False
            row = rows_of(db.execute(sql.FIND, {"b_id": claim.id}))[0]
            return self._again(db, row, tries=tries, begun=begun)

        return await self._database.write(work)

    # In the store's threads

    def _note(self, db: Connection, row: JobRow, files: Sequence[FileRow]) -> None:
        from gateway.store.sql import jobs as sql

        for file in files:
            db.execute(
                sql.FILE,
                {"name": file.name, "job": row.id, "owner": row.owner, "digest": file.digest, "input": file.input},
            )

    def _again(self, db: Connection, row: JobRow, *, tries: int, begun: bool = True, wanted: bool = True) -> bool:
        """Have a job that runs nowhere wait again; where it may not, it is over."""
        from gateway.store.sql import jobs as sql

        if row.stopping or not wanted:
            self._end(db, row.id, Ending(state="cancelled"), row.done)
            return False
        if begun and row.attempt >= tries:
            times = "once" if row.attempt == 1 else f"{row.attempt} times"
            words = f"the worker died over it {times}; it is not begun again"
            self._end(db, row.id, Ending(state="failed", error=words, code=LOST, status=500), row.done)
            return False
        attempt = row.attempt if begun else max(0, row.attempt - 1)
        db.execute(sql.GIVE_BACK, {"b_id": row.id, "b_attempt": attempt, "b_done": row.done})
        return True

    def _unwaited(self, db: Connection) -> list[str]:
        """End what only the client of a dead gateway waited for; those that run are asked to stop."""
        from gateway.store.sql import jobs as sql

        over: list[str] = []
        for row in rows_of(db.execute(sql.WAITED)):
            if not self._database.alive.sees(row.waiter, db):
                if row.state == "queued":
                    self._end(db, row.id, Ending(state="cancelled"), row.done)
                    over.append(row.id)
                else:
                    db.execute(sql.STOP, {"b_id": row.id})
        return over

    def _dead(self, db: Connection, row: JobRow) -> bool:
        return not self._database.alive.sees(row.runner, db) or row.beat < self.clock() - SILENT

    def _end(self, db: Connection, id: str, ending: Ending, done: int) -> None:
        from gateway.store.sql import jobs as sql

        what = {"b_state": ending.state, "b_error": ending.error, "b_code": ending.code, "b_status": ending.status}
        db.execute(sql.SETTLE, {**what, "b_id": id, "b_now": ending.finished or self.clock(), "b_done": done})

    def _evicted(self, db: Connection, now: float) -> list[str]:
        from gateway.store.sql import jobs as sql

        names: list[str] = []
        if self._bounds.keep >= 0:
            names += removed(db, db.execute(sql.UNUSED, {"b_before": now - self._bounds.keep}).scalars().all())

        def oldest(owner: str) -> Iterator[tuple[str, int]]:
            # What ended a moment ago stays: its client is on the way to its pictures.
            what = {"b_owner": owner, "b_count": PAGE, "b_before": now - FRESH}
            found = pages(lambda skip: db.execute(sql.OLDEST, {**what, "b_skip": skip}).all())
            yield from ((id, size) for id, size in found)

        held = {owner: (count, int(size)) for owner, count, size in db.execute(sql.KEPT)}
        return names + removed(db, self._bounds.gone(held, oldest, now))


def _claim(row: JobRow) -> dict[str, object]:
    return {"b_id": row.id, "b_runner": row.runner, "b_attempt": row.attempt}


def rows_of(found: Iterable[Row[Any]]) -> list[JobRow]:
    """What was found, as jobs."""
    return [JobRow(**row._asdict()) for row in found]


def placed(db: Connection) -> list[Placed]:
    """All jobs that are not over, by age."""
    from gateway.store.sql import jobs as sql

    names = Placed.__struct_fields__
    return [Placed(**dict(zip(names, row, strict=True))) for row in db.execute(sql.LINE)]


def removed(db: Connection, ids: Sequence[str]) -> list[str]:
    """Delete jobs; the files that no job has any more."""
    from gateway.store.sql import jobs as sql

    names: list[str] = []
    for id in ids:
        names += db.execute(sql.FILES, {"b_id": id}).scalars()
        db.execute(sql.DROP_FILES, {"b_id": id})
        db.execute(sql.DELETE, {"b_id": id})
    shared = set(db.execute(sql.SHARED, {"b_names": names}).scalars()) if names else set()
    return [name for name in dict.fromkeys(names) if name not in shared]
