"""What outlives the process: responses, each linked to the one before it, and each the property of the key it came with.

Responses that go on from one another are a tree, whichever way they branch. Uses are noted by tree: an answer is not
forgotten while one that goes on from it is in use, and a turn of a long conversation costs no more than one of a short.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from canonical.errors import InvalidRequest, NotFound, StorageFailed
from gateway.alive import Alive
from gateway.commits import Commits

FILE = "responses.db"
FRESH = 60.0
"""Seconds in which a second use is not noted."""
PROBE = 64 * 1024
"""Bytes that must find room before a store in trouble is trusted again."""

UNFINISHED = ("queued", "in_progress")
ABANDONED = "abandoned"
"""The status of an answer whose gateway died over it."""

MIGRATIONS = (
    """
    CREATE TABLE responses (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, previous TEXT, tree TEXT NOT NULL,
        status TEXT NOT NULL, runner TEXT NOT NULL, input BLOB NOT NULL, object BLOB NOT NULL, log BLOB NOT NULL
    );
    CREATE INDEX responses_by_tree ON responses (tree);
    CREATE TABLE trees (id TEXT PRIMARY KEY, used REAL NOT NULL);
    CREATE INDEX trees_by_use ON trees (used);
    """,
    """
    ALTER TABLE responses ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    UPDATE responses SET size = length(input) + length(object) + length(log);
    CREATE INDEX responses_by_owner ON responses (owner, size);
    """,
)

_CHAIN = """
WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND owner = :owner
    UNION ALL
    SELECT r.id, r.previous, depth + 1 FROM responses r JOIN chain c ON r.id = c.previous
    WHERE r.owner = :owner AND depth < :limit
)
"""
_LINKS = f"""{_CHAIN} SELECT r.id, r.previous, r.tree, length(r.input) + length(r.object)
FROM chain JOIN responses r USING (id) ORDER BY depth"""  # noqa: S608  constants
_ROWS = f"""{_CHAIN} SELECT r.id, r.previous, r.status, r.runner, r.input, r.object
FROM chain JOIN responses r USING (id) ORDER BY depth DESC"""  # noqa: S608
_UNUSED = "SELECT r.id, r.tree FROM trees t JOIN responses r ON r.tree = t.id WHERE t.used < ?"
_HELD = "SELECT owner, count(*), sum(size) FROM responses GROUP BY owner"
# By the trees in their order, where SQLite would rather sort all that the owner has: a full store evicts with every answer.
_OLDEST = """SELECT r.id, r.tree, r.size FROM trees t CROSS JOIN responses r INDEXED BY responses_by_tree ON r.tree = t.id
WHERE +r.owner = ? AND r.status NOT IN (?, ?) ORDER BY t.used, r.number"""


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


class Store:
    """The responses of one folder.

    Those unused for ``keep`` seconds go (negative: none). Beyond ``limit`` responses, or ``size`` bytes of them, those go
    that were used longest ago: of the owner who has most, so that nobody drives out what others keep.
    """

    def __init__(
        self, folder: Path, *, keep: float, limit: int, size: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._keep = keep
        self._limit = limit
        self._size = size
        self._clock = clock
        self._alive = Alive(folder)
        self._commits = Commits(folder / FILE, migrations=MIGRATIONS, ending=self._alive.hide)

    async def ready(self) -> None:
        """Raises StorageFailed where something is known to be wrong, and still is."""
        if not self._limit:
            raise StorageFailed("this gateway keeps no responses: `responses.limit` is 0")
        if self._commits.trouble is not None:
            await self._commits.do(_probe, writes=True)

    async def put(self, row: Row) -> None:
        """Keep ``row``, durably; its whole tree counts as used. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> None:
            log = _packed(row.log)
            size = len(row.input) + len(row.object) + len(log)
            if size > self._size:
                raise StorageFailed(f"a response of {size} bytes is more than is kept of all: `responses.size`")
            runner = ""
            if row.status in UNFINISHED:
                self._alive.show()
                runner = self._alive.token
            now = self._clock()
            found = db.execute("SELECT tree FROM responses WHERE id = ? AND owner = ?", (row.previous, row.owner))
            (tree,) = found.fetchone() or (row.id,)
            db.execute(
                "INSERT OR REPLACE INTO responses VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (row.id, row.owner, row.previous, tree, row.status, runner, row.input, row.object, log, size),
            )
            db.execute("INSERT OR REPLACE INTO trees VALUES (?, ?)", (tree, now))
            self._evict(db, now)

        await self._commits.do(work, writes=True)

    async def settle(self, id: str, *, status: str, object: bytes, log: bytes = b"") -> bool:
        """Note how an unfinished response ended. False: it is gone, or has ended otherwise. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> bool:
            packed = _packed(log)
            done = db.execute(
                "UPDATE responses SET status = ?, object = ?, log = ?, size = length(input) + ? "
                "WHERE id = ? AND status IN (?, ?)",
                (status, object, packed, len(object) + len(packed), id, *UNFINISHED),
            )
            self._evict(db, self._clock())
            return done.rowcount > 0

        return await self._commits.do(work, writes=True)

    async def get(self, id: str, *, owner: str) -> Row | None:
        """One response; None where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> Row | None:
            found = db.execute(
                "SELECT previous, status, input, object, log, runner, tree FROM responses WHERE id = ? AND owner = ?",
                (id, owner),
            ).fetchone()
            if found is None:
                return None
            previous, status, input, object, log, runner, tree = found
            status = self._true_status(status, runner)
            self._touch(db, tree)
            log = zlib.decompress(log) if log else b""
            return Row(id=id, owner=owner, previous=previous, status=status, input=input, object=object, log=log)

        return await self._commits.do(work) if self._commits.exists else None

    async def chain(self, id: str, *, owner: str, limit: int, size: int) -> list[Row]:
        """The response and all that it goes on from, the oldest first. Empty: there is none of this id.

        Raises:
            InvalidRequest: there are more than ``limit`` of them, or they have more than ``size`` bytes.
            NotFound: one in the middle is gone.
            StorageFailed: the store cannot be read.
        """

        def work(db: sqlite3.Connection) -> list[Row]:
            what = {"id": id, "owner": owner, "limit": limit}
            links = db.execute(_LINKS, what).fetchall()
            if not links:
                return []
            if len(links) > limit:
                raise InvalidRequest(f"a conversation may have at most {limit} responses")
            if sum(link[3] for link in links) > size:
                raise InvalidRequest(f"a conversation may have at most {size} bytes")
            if links[-1][1] is not None:
                raise NotFound(f"response {links[-1][1]!r}, which {id!r} goes on from, has been deleted")
            self._touch(db, links[0][2])
            return [
                Row(
                    id=one,
                    owner=owner,
                    previous=previous,
                    status=self._true_status(status, runner),
                    input=input,
                    object=object,
                )
                for one, previous, status, runner, input, object in db.execute(_ROWS, what)
            ]

        return await self._commits.do(work) if self._commits.exists else []

    async def delete(self, id: str, *, owner: str) -> bool:
        """Forget one response; False where ``owner`` has none of this id. Raises StorageFailed."""

        def work(db: sqlite3.Connection) -> bool:
            found = db.execute("SELECT id, tree FROM responses WHERE id = ? AND owner = ?", (id, owner)).fetchall()
            _remove(db, found)
            return bool(found)

        return self._commits.exists and await self._commits.do(work, writes=True)

    async def close(self) -> None:
        """Let go of the file. A later call would open it again."""
        await self._commits.close()

    # In the thread

    def _evict(self, db: sqlite3.Connection, now: float) -> None:
        if self._keep >= 0:
            _remove(db, db.execute(_UNUSED, (now - self._keep,)).fetchall())
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        for owner, count, size in db.execute(_HELD):
            counts[owner], sizes[owner] = count, size
        more, bytes = sum(counts.values()) - self._limit, sum(sizes.values()) - self._size
        oldest: dict[str, sqlite3.Cursor] = {}
        found: list[tuple[str, str]] = []
        while counts and (more > 0 or bytes > 0):
            held = sizes if bytes > 0 else counts
            owner = max(held, key=held.__getitem__)
            if owner not in oldest:
                oldest[owner] = db.execute(_OLDEST, (owner, *UNFINISHED))
            one = oldest[owner].fetchone()
            if one is None:  # all that is left is in the making
                del counts[owner], sizes[owner]
                continue
            id, tree, size = one
            found.append((id, tree))
            counts[owner] -= 1
            sizes[owner] -= size
            more -= 1
            bytes -= size
        _remove(db, found)

    def _true_status(self, status: str, runner: str) -> str:
        return ABANDONED if status in UNFINISHED and not self._alive.sees(runner) else status

    def _touch(self, db: sqlite3.Connection, tree: str) -> None:
        now = self._clock()
        with contextlib.suppress(sqlite3.Error):  # a full disk keeps nobody from reading
            db.execute("UPDATE trees SET used = ? WHERE id = ? AND used < ?", (now, tree, now - FRESH))


def _remove(db: sqlite3.Connection, found: Sequence[tuple[str, str]]) -> None:
    """Forget responses, each given with its tree, and trees that are empty then."""
    db.executemany("DELETE FROM responses WHERE id = ?", [(id,) for id, _ in found])
    db.executemany(
        "DELETE FROM trees WHERE id = ? AND NOT EXISTS (SELECT 1 FROM responses WHERE tree = ?)",
        [(tree, tree) for tree in {tree for _, tree in found}],
    )


def _probe(db: sqlite3.Connection) -> None:
    """Write and take away as much as most responses need."""
    db.execute("INSERT INTO responses VALUES (NULL, '', '', NULL, '', '', '', zeroblob(?), x'', x'', 0)", (PROBE,))
    db.execute("DELETE FROM responses WHERE id = ''")


def _packed(log: bytes) -> bytes:
    return zlib.compress(log, 3) if log else b""
