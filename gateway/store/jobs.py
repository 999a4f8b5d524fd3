"""Jobs: what is to be painted, who works on it, and what became of it. A row here is the truth about a job.

This half keeps jobs and finds them; ``claims`` has what is said of them while they are worked on. Rows tell which files belong
to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal

from canonical.errors import StorageFailed
from gateway.store.claims import Claims, placed, removed, rows_of
from gateway.store.job_row import Ending, FileRow, JobRow
from gateway.store.line import Line, in_order

if TYPE_CHECKING:
    from sqlalchemy import Connection

SPEEDS = 5
"""Finished jobs of a model that tell how fast it is."""
NEWEST = 2**62
Added = Literal["kept", "full", "gone"]
Room = Callable[[int, int, int], bool]
"""Whether one more may wait, told how many wait, how many run, and how many of those that wait are of the same owner."""


class JobRows(Claims):
    """All jobs of one database."""

    async def unfinished(self) -> bool:
        """Whether any job is not over: what each start asks, and most need not open the database for. Raises StorageFailed."""
        found = await self._database.glance("SELECT 1 FROM jobs WHERE state IN ('queued', 'running') LIMIT 1")
        return bool(await self.counts()) if found is None else found

    async def counts(self) -> dict[str, int]:
        """How many jobs wait, and how many run, by state. Raises StorageFailed."""
        return await self._database.read(_counts) if self.exists else {}

    async def add(
        self,
        row: JobRow,
        files: Sequence[FileRow] = (),
        *,
        room: Room,
        waits: bool = False,
        shared: Collection[str] = (),
        size: int = 0,
    ) -> Added:
        """Keep a new job, durably. ``full``: ``room`` has none, and nothing was kept.

        ``waits``: a client of this gateway waits for it. ``shared``: files that another job brought; ``gone``: it has been
        deleted meanwhile, and nothing was kept. ``size``: bytes of the others. Raises StorageFailed.
        """
        if not self._bounds.limit:
            raise StorageFailed("this gateway keeps no jobs: `jobs.limit` is 0")

        def work(db: Connection) -> Added:
            from gateway.store.sql import jobs as sql

            counts = _counts(db)
            mine: int = db.execute(sql.MINE, {"b_owner": row.owner}).scalar_one()
            if not room(counts.get("queued", 0), counts.get("running", 0), mine):
                return "full"
            if shared and set(db.execute(sql.SHARED, {"b_names": list(shared)}).scalars()) != set(shared):
                return "gone"
            if waits:
                self._database.alive.show()
            values = {name: getattr(row, name) for name in row.__struct_fields__}
            db.execute(sql.ADD, {**values, "waiter": self.me if waits else "", "size": size})
            self._note(db, row, files)
            return "kept"

        return await self._database.write(work)

    async def shareable(self, owner: str, digest: str) -> str:
        """The name of a file with these bytes that a job of the owner begins with already; empty: none. Raises StorageFailed."""

        def work(db: Connection) -> str:
            from gateway.store.sql import jobs as sql

            found: str | None = db.execute(sql.INPUT_BY_DIGEST, {"b_owner": owner, "b_digest": digest}).scalar()
            return found or ""

        return await self._database.read(work) if self.exists else ""

    # Looking

    async def find(self, id: str) -> JobRow | None:
        """A job, whosever it is. Raises StorageFailed."""
        found = await self.several([id])
        return found[0] if found else None

    async def several(self, ids: Collection[str]) -> list[JobRow]:
        """Those of these jobs that there are. Raises StorageFailed."""

        def work(db: Connection) -> list[JobRow]:
            from gateway.store.sql import jobs as sql

            return rows_of(db.execute(sql.SEVERAL, {"b_ids": list(ids)}))

        return await self._database.read(work) if ids and self.exists else []

    async def page(self, *, owner: str, states: Collection[str], limit: int, after: str) -> list[JobRow] | None:
        """The owner's, the newest first; None: there is no ``after``. Raises StorageFailed."""

        def work(db: Connection) -> list[JobRow] | None:
            from gateway.store.sql import jobs as sql

            before: int | None = NEWEST
            if after:
                before = db.execute(sql.NUMBER, {"b_id": after, "b_owner": owner}).scalar()
            if before is None:
                return None
            what = {"b_owner": owner, "b_before": before, "b_limit": limit}
            if states:
                return rows_of(db.execute(sql.PAGE_IN, {**what, "b_states": list(states)}))
            return rows_of(db.execute(sql.PAGE, what))

        if not self.exists:
            return None if after else []
        return await self._database.read(work)

    async def line(self) -> Line:
        """All that is not over. Raises StorageFailed."""

        def work(db: Connection) -> Line:
            from gateway.store.sql import jobs as sql

            open = placed(db)
            speeds: dict[str, float] = {}
            for model in {job.model for job in open}:
                past = db.execute(sql.SPEED, {"b_model": model, "b_count": SPEEDS}).all()
                if known := sorted(seconds / cost for cost, seconds in past if cost):
                    # Among the quicker ones: the others waited for their model to be loaded.
                    speeds[model] = known[len(known) // 4]
            return Line([job for job in open if job.state == "running"], in_order(open), speeds)

        return await self._database.read(work) if self.exists else Line([], [], {})

    async def owner_of(self, name: str) -> str | None:
        """Whose picture this is; None: there is none of this name. Raises StorageFailed."""

        def work(db: Connection) -> str | None:
            from gateway.store.sql import jobs as sql

            owner: str | None = db.execute(sql.OWNER_OF, {"b_name": name}).scalar()
            return owner

        return await self._database.read(work) if self.exists else None

    async def by_digest(self, digest: str, *, owner: str) -> str | None:
        """The name of a file of the owner's with these bytes, whether one began with it or ended with it. Raises StorageFailed."""

        def work(db: Connection) -> str | None:
            from gateway.store.sql import jobs as sql

            name: str | None = db.execute(sql.BY_DIGEST, {"b_owner": owner, "b_digest": digest}).scalar()
            return name

        return await self._database.read(work) if self.exists else None

    async def known(self, names: Collection[str]) -> set[str]:
        """Those of these files that some job has. Raises StorageFailed."""

        def work(db: Connection) -> set[str]:
            from gateway.store.sql import jobs as sql

            return set(db.execute(sql.SHARED, {"b_names": list(names)}).scalars())

        return await self._database.read(work) if names and self.exists else set()

    # Ending, and after it

    async def cancel(self, id: str, *, owner: str) -> JobRow | None:
        """Take it out of the queue, or ask its runner to stop; how it is then. None: there is none. Raises StorageFailed."""

        def work(db: Connection) -> JobRow | None:
            from gateway.store.sql import jobs as sql

            rows = rows_of(db.execute(sql.FIND, {"b_id": id}))
            if not rows or rows[0].owner != owner:
                return None
            row = rows[0]
            if row.state == "queued" or (row.state == "running" and self._dead(db, row)):
                self._end(db, id, Ending(state="cancelled"), row.done)
            elif row.state == "running":
                db.execute(sql.STOP, {"b_id": id})
            return rows_of(db.execute(sql.FIND, {"b_id": id}))[0]

        return await self._database.write(work) if self.exists else None

    async def forget(self, id: str, *, owner: str) -> list[str] | None:
        """Delete a job that is over; the names of files that nobody needs then. None: there is none, or it is not over.

        Raises StorageFailed.
        """

        def work(db: Connection) -> list[str] | None:
            from gateway.store.sql import jobs as sql

            rows = rows_of(db.execute(sql.FIND, {"b_id": id}))
            if not rows or rows[0].owner != owner or not rows[0].over:
                return None
            return removed(db, [id])

        return await self._database.write(work) if self.exists else None

    async def evict(self) -> list[str]:
        """Delete what is too old or too much; the names of files that nobody needs then. Raises StorageFailed."""
        return await self._database.write(lambda db: self._evicted(db, self.clock())) if self.exists else []


def _counts(db: Connection) -> dict[str, int]:
    from gateway.store.sql import jobs as sql

    return {state: count for state, count in db.execute(sql.COUNTS)}  # noqa: C416  mypy has rows for no pairs
