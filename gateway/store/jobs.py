"""Jobs: what is to be painted, who works on it, and what became of it. A row here is the truth about a job.

Each change of a state is one transaction in the one line of writers, so that no job is claimed twice and none ends twice. Who
works on a job holds a claim, its runner's token and the number of the attempt; what is said with a claim that no longer stands
is not heard. Rows tell which files belong to them; whoever deletes rows is given the names of those that nobody needs any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, structs

from canonical.errors import StorageFailed
from gateway.store.database import Database
from gateway.store.evicting import FRESH, PAGE, Bounds, pages
from gateway.store.line import Placed, in_order

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

SILENT = 300.0
"""Seconds without a sign of life after which a runner is thought dead although its process is not."""
SPEEDS = 5
"""Finished jobs of a model that tell how fast it is."""
NEWEST = 2**62
Added = Literal["kept", "full", "gone"]
Room = Callable[[int, int, int], bool]
"""Whether one more may wait, told how many wait, how many run, and how many of those that wait are of the same owner."""
LOST = "worker_died"
"""The code of a job that was begun as often as may be, and whose worker died each time."""


class JobRow(Struct, frozen=True, kw_only=True):
    """One job, as it is kept. What its bytes mean is the business of ``gateway.jobs``."""

    id: str
    owner: str
    state: str = "queued"
    priority: int = 0
    dialect: str = ""
    model: str = ""
    cost: float = 0
    created: float = 0
    started: float = 0
    finished: float = 0
    done: int = 0
    total: int = 0
    attempt: int = 0
    """How often it was begun."""
    runner: str = ""
    """Who works on it."""
    beat: float = 0
    """The runner's last sign of life."""
    waiter: str = ""
    """The gateway whose client waits for it: where that one ends, the job does."""
    stopping: bool = False
    """Its runner is asked to stop."""
    error: str = ""
    code: str = ""
    status: int = 0
    request: bytes
    inputs: bytes = b"{}"
    results: bytes = b"[]"

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in {"done", "failed", "cancelled"}


class FileRow(Struct, frozen=True):
    """A file of a job; ``input``: the job begins with it."""

    name: str
    digest: str
    input: bool = False


class Ending(Struct, frozen=True, kw_only=True):
    """How a job ends."""

    state: str
    error: str = ""
    code: str = ""
    status: int = 0
    finished: float = 0
    """When; 0: now."""


class Line(Struct, frozen=True):
    """All jobs that are not over, and how long models take."""

    running: list[Placed]
    waiting: list[Placed]
    """In the order in which they will be begun."""
    speeds: dict[str, float]
    """By model: seconds for a step of a megapixel."""


class Swept(Struct, frozen=True):
    """What was found of those who died: jobs that wait again, and jobs that are over."""

    again: list[str]
    over: list[str]


class JobRows:
    """All jobs of one database, with ``keep``, ``limit`` and ``size`` as those of ``Responses``: of jobs that are over."""

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

            return _rows(db.execute(sql.SEVERAL, {"b_ids": list(ids)}))

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
                return _rows(db.execute(sql.PAGE_IN, {**what, "b_states": list(states)}))
            return _rows(db.execute(sql.PAGE, what))

        if not self.exists:
            return None if after else []
        return await self._database.read(work)

    async def line(self) -> Line:
        """All that is not over. Raises StorageFailed."""

        def work(db: Connection) -> Line:
            from gateway.store.sql import jobs as sql

            open = _placed(db)
            speeds: dict[str, float] = {}
            for model in {job.model for job in open}:
                past = db.execute(sql.SPEED, {"b_model": model, "b_count": SPEEDS}).all()
                if cost := sum(row[0] for row in past):
                    speeds[model] = sum(row[1] for row in past) / cost
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

    # Working

    async def claim(self) -> JobRow | None:
        """Begin the next job; None: none waits. Raises StorageFailed."""

        def work(db: Connection) -> JobRow | None:
            from gateway.store.sql import jobs as sql

            self._database.alive.show()
            waiting = in_order(_placed(db))
            if not waiting:
                return None
            first = waiting[0]
            now = self.clock()
            db.execute(sql.CLAIM, {"b_id": first.id, "b_runner": self.me, "b_now": now})
            last: int = db.execute(sql.LAST_TURN).scalar_one()
            db.execute(sql.TURN[db.dialect.name], {"owner": first.owner, "turn": last + 1})
            return _rows(db.execute(sql.FIND, {"b_id": first.id}))[0]

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
            row = _rows(db.execute(sql.FIND, {"b_id": claim.id}))[0]
            if row.waiter or row.stopping:
                self._end(db, row.id, Ending(state="cancelled"), row.done)
                return "cancelled"
            db.execute(sql.GIVE_BACK, {"b_id": row.id, "b_attempt": max(0, row.attempt - 1), "b_done": row.done})
            return "queued"

        return await self._database.write(work)

    async def cancel(self, id: str, *, owner: str) -> JobRow | None:
        """Take it out of the queue, or ask its runner to stop; how it is then. None: there is none. Raises StorageFailed."""

        def work(db: Connection) -> JobRow | None:
            from gateway.store.sql import jobs as sql

            rows = _rows(db.execute(sql.FIND, {"b_id": id}))
            if not rows or rows[0].owner != owner:
                return None
            row = rows[0]
            if row.state == "queued" or (row.state == "running" and self._dead(db, row)):
                self._end(db, id, Ending(state="cancelled"), row.done)
            elif row.state == "running":
                db.execute(sql.STOP, {"b_id": id})
            return _rows(db.execute(sql.FIND, {"b_id": id}))[0]

        return await self._database.write(work) if self.exists else None

    async def sweep(self, *, tries: int, working: Collection[str] = ()) -> Swept:
        """Take care of jobs whose runner is dead, or whose client's gateway is. ``working``: what this process works on.

        Raises StorageFailed.
        """

        def work(db: Connection) -> Swept:
            from gateway.store.sql import jobs as sql

            swept = Swept([], [])
            for row in _rows(db.execute(sql.RUNNING)):
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
            dead = [row for row in _rows(db.execute(sql.RUNNING)) if self._dead(db, row)]
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
            row = _rows(db.execute(sql.FIND, {"b_id": claim.id}))[0]
            return self._again(db, row, tries=tries, begun=begun)

        return await self._database.write(work)

    async def forget(self, id: str, *, owner: str) -> list[str] | None:
        """Delete a job that is over; the names of files that nobody needs then. None: there is none, or it is not over.

        Raises StorageFailed.
        """

        def work(db: Connection) -> list[str] | None:
            from gateway.store.sql import jobs as sql

            rows = _rows(db.execute(sql.FIND, {"b_id": id}))
            if not rows or rows[0].owner != owner or not rows[0].over:
                return None
            return _removed(db, [id])

        return await self._database.write(work) if self.exists else None

    async def evict(self) -> list[str]:
        """Delete what is too old or too much; the names of files that nobody needs then. Raises StorageFailed."""
        return await self._database.write(lambda db: self._evicted(db, self.clock())) if self.exists else []

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
        for row in _rows(db.execute(sql.WAITED)):
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
            names += _removed(db, db.execute(sql.UNUSED, {"b_before": now - self._bounds.keep}).scalars().all())

        def oldest(owner: str) -> Iterator[tuple[str, int]]:
            # What ended a moment ago stays: its client is on the way to its pictures.
            what = {"b_owner": owner, "b_count": PAGE, "b_before": now - FRESH}
            found = pages(lambda skip: db.execute(sql.OLDEST, {**what, "b_skip": skip}).all())
            yield from ((id, size) for id, size in found)

        held = {owner: (count, int(size)) for owner, count, size in db.execute(sql.KEPT)}
        return names + _removed(db, self._bounds.gone(held, oldest, now))


def _counts(db: Connection) -> dict[str, int]:
    from gateway.store.sql import jobs as sql

    return {state: count for state, count in db.execute(sql.COUNTS)}  # noqa: C416  mypy has rows for no pairs


def _claim(row: JobRow) -> dict[str, object]:
    return {"b_id": row.id, "b_runner": row.runner, "b_attempt": row.attempt}


def _rows(found: Iterable[Row[Any]]) -> list[JobRow]:
    return [JobRow(**row._asdict()) for row in found]


def _placed(db: Connection) -> list[Placed]:
    from gateway.store.sql import jobs as sql

    names = Placed.__struct_fields__
    return [Placed(**dict(zip(names, row, strict=True))) for row in db.execute(sql.LINE)]


def _removed(db: Connection, ids: Sequence[str]) -> list[str]:
    """Delete jobs; the files that no job has any more."""
    from gateway.store.sql import jobs as sql

    names: list[str] = []
    for id in ids:
        names += db.execute(sql.FILES, {"b_id": id}).scalars()
        db.execute(sql.DROP_FILES, {"b_id": id})
        db.execute(sql.DELETE, {"b_id": id})
    shared = set(db.execute(sql.SHARED, {"b_names": names}).scalars()) if names else set()
    return [name for name in dict.fromkeys(names) if name not in shared]
