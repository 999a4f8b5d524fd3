"""The schema of the store: made once, taken along, and what was kept before it is taken over."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import StorageFailed
from gateway.store import Store
from gateway.store.sqlite import EARLIER
from tests.serving import ROOT
from tests.stored import ANN, Place, row, session


def test_a_current_schema_is_opened_without_alembic(fresh: Place) -> None:
    code = """if True:
        import asyncio, sys
        from pathlib import Path
        from gateway.settings import Config
        from gateway.store import Session, Store
        async def main():
            store = Store(Config(database=sys.argv[2]), Path(sys.argv[1]))
            await store.sessions.put(Session(id="s", owner="o", model="m"))
            await store.close()
            print("alembic" in sys.modules)
        asyncio.run(main())
    """
    command = [sys.executable, "-c", code, str(fresh.folder), fresh.url]
    for wanted in ("True\n", "False\n"):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout == wanted


def test_the_migrations_make_what_the_tables_say(fresh: Place) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from gateway.store import schema
    from gateway.store.sql.tables import VERSIONS, metadata

    async def story(store: Store) -> None:
        await store.sessions.put(session("s"))

        def compared(db: Any) -> list[Any]:
            return compare_metadata(MigrationContext.configure(db, opts={"version_table": VERSIONS}), metadata)

        assert await store.database.read(compared) == []

    fresh.kept(story)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "gateway/store/migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]
    assert fresh.ask("SELECT version_num FROM dragoman_version") == [(schema.HEAD,)]


def test_a_newer_store_is_left_alone(fresh: Place) -> None:
    async def refused(store: Store) -> None:
        for _ in range(2):
            with pytest.raises(StorageFailed, match="newer"):
                await store.sessions.get("s", owner=ANN)
            with pytest.raises(StorageFailed, match="newer"):
                await store.sessions.put(session("s", "changed"))
            with pytest.raises(StorageFailed, match="newer"):
                await store.responses.ready()

    fresh.kept(lambda store: store.sessions.put(session("s")))
    fresh.ask("UPDATE dragoman_version SET version_num = '999'")
    fresh.kept(refused)
    assert fresh.ask("SELECT version_num FROM dragoman_version") == [("999",)]
    assert fresh.ask("SELECT model FROM sessions") == [("m",)]


_EARLIER = (
    """
    CREATE TABLE responses (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, previous TEXT, tree TEXT NOT NULL,
        status TEXT NOT NULL, runner TEXT NOT NULL, input BLOB NOT NULL, object BLOB NOT NULL, log BLOB NOT NULL
    );
    CREATE TABLE trees (id TEXT PRIMARY KEY, used REAL NOT NULL);
    INSERT INTO responses VALUES (1, 'a', 'ann', NULL, 'a', 'completed', '', x'5b5d', zeroblob(90), x'');
    INSERT INTO responses VALUES (2, 'b', 'ann', 'a', 'a', 'queued', 'deadbeef', x'5b5d', zeroblob(10), x'');
    INSERT INTO trees VALUES ('a', 1000000.0);
    INSERT INTO trees VALUES ('empty', 1.0);
    """,
    "ALTER TABLE responses ADD COLUMN size INTEGER NOT NULL DEFAULT 0;",
)


def earlier(place: Place, version: int) -> Path:
    """The file as an earlier version left it."""
    file = place.folder / EARLIER
    place.folder.mkdir(exist_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.executescript(
            "PRAGMA journal_mode = WAL;" + "".join(_EARLIER[:version]) + f"PRAGMA user_version = {version};"
        )
    return file


@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_an_earlier_version_kept_is_taken_over_once(file: Place, version: int) -> None:
    old = earlier(file, version)

    async def story(store: Store) -> None:
        found = await store.responses.chain("b", owner=ANN, limit=9, size=1000)
        wanted = [("a", "completed", 90), ("b", "abandoned", 10)] if version else []
        assert [(row.id, row.status, len(row.object)) for row in found] == wanted
        await store.responses.put(row("c", previous="b"))
        assert len(await store.responses.chain("c", owner=ANN, limit=9, size=1000)) == len(wanted) + 1 if version else 1

    if version:
        file.kept(story)
        await_none = file.folder / EARLIER
        assert not await_none.exists()
        assert old.with_name(f"{EARLIER}.imported").exists()
        assert file.ask("SELECT id, size FROM responses ORDER BY number")[:2] == [("a", 92), ("b", 12)]
        assert file.ask("SELECT id, owner FROM trees") == [("a", ANN)]
    else:
        file.kept(lambda store: store.sessions.put(session("s")))
        assert not old.exists()


def test_what_was_taken_over_before_a_crash_is_not_doubled(file: Place) -> None:
    """It is copied, and set aside a moment later: a process may end in between, or an older version be used again."""
    for number in range(1, 4):
        earlier(file, 2)
        file.kept(lambda store: store.sessions.put(session("s")))
        assert file.ask("SELECT id FROM responses ORDER BY number") == [("a",), ("b",)]
        assert len(list(file.folder.glob(f"{EARLIER}.imported*"))) == number


def test_gateways_that_start_together_take_it_over_once(file: Place) -> None:
    earlier(file, 2)

    async def story() -> None:
        stores = [file.store() for _ in range(4)]
        found = await asyncio.gather(*(store.responses.get("a", owner=ANN) for store in stores))
        assert all(found)
        for store in stores:
            await store.close()

    asyncio.run(story())
    assert file.ask("SELECT id FROM responses") == [("a",), ("b",)]
    assert [path.name for path in file.folder.glob(f"{EARLIER}*")] == [f"{EARLIER}.imported"]


def test_a_newer_or_damaged_file_of_earlier_versions_is_left_alone(file: Place) -> None:
    old = earlier(file, 2)
    with contextlib.closing(sqlite3.connect(old)) as db:
        db.execute("PRAGMA user_version = 3")
    for text in ("newer", "damaged"):
        before = old.read_bytes()

        async def story(store: Store, text: str = text) -> None:
            with pytest.raises(StorageFailed, match=text):
                await store.responses.get("a", owner=ANN)

        file.kept(story)
        assert old.read_bytes() == before
        old.write_bytes(b"no database, whatever it is " * 1000)
