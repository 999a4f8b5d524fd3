"""What the store stands on, whichever database it is: durable, shared, and honest about what goes wrong. (Reliability 6)"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canonical.errors import StorageFailed
from gateway.config import ConfigError, settle
from gateway.store import Row, Session, Store, alive
from gateway.store.evicting import beyond
from gateway.store.sqlite import EARLIER
from tests.postgres import PASSWORD, Server
from tests.serving import ROOT
from tests.stored import ANN, Place


def row(id: str, size: int = 9, **more: Any) -> Row:
    return Row(id=id, owner=ANN, input=b"[]", object=b"x" * size, **{"status": "completed", **more})


def session(id: str, model: str = "m") -> Session:
    return Session(id=id, owner=ANN, model=model)


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """A place for SQLite's file alone."""
    return Place(tmp_path / "data")


# Durable.

_DIES = """
import asyncio, sys
from pathlib import Path
from gateway.settings import Config
from gateway.store import Row, Session, Store

async def main():
    store = Store(Config(database=sys.argv[2]), Path(sys.argv[1]))
    await store.conversations.start("c", owner="ann")
    number = 0
    while True:
        number += 1
        await asyncio.gather(
            *(store.responses.put(Row(id=f"r{number}.{n}", owner="ann", status="queued" if n else "completed",
                                      input=b"[]", object=b"x" * 500)) for n in range(4)),
            store.sessions.put(Session(id="s", owner="ann", model=f"m{number}")),
            store.conversations.ask("c", owner="ann", prompt=f"p{number}", model="m"),
        )
        if number % 2:
            await store.conversations.settle("c", owner="ann", number=number, state="answered", answer=f"a{number}")
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [1, 25])
def test_a_kill_loses_nothing_that_was_answered_doubles_nothing_and_keeps_the_order(
    place: Place, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "GRACE", 0)
    process = subprocess.Popen(
        [sys.executable, "-c", _DIES, str(place.folder), place.url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(rounds)][-1]
    process.kill()
    process.wait()
    process.stdout.close()

    async def story(store: Store) -> None:
        for number in range(1, told + 1):
            for n in range(4):
                found = await store.responses.get(f"r{number}.{n}", owner=ANN)
                assert found is not None
                assert found.status == ("abandoned" if n else "completed")
        kept = await store.sessions.get("s", owner=ANN)
        assert kept is not None
        assert int(kept.model[1:]) >= told  # it may have gone on before it died
        turns = await store.conversations.turns("c", owner=ANN)
        assert turns is not None
        assert len(turns) >= told
        for number, turn in enumerate(turns, 1):
            assert (turn.number, turn.prompt) == (number, f"p{number}")
            if number <= told:
                assert (turn.state, turn.answer) == (("answered", f"a{number}") if number % 2 else ("failed", ""))
        assert turns[-1].state in {"answered", "failed"}

    until_gone(place)
    place.kept(story)


def until_gone(place: Place) -> None:
    """The server notices that a client has died, within a moment."""
    while place.server is not None and place.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"):
        time.sleep(0.01)


def test_a_commit_waits_for_the_disk(place: Place) -> None:
    """Which no kill of a process could show. A server's own laxity does not count."""
    asked = "SHOW synchronous_commit" if place.url else "PRAGMA synchronous"
    if place.server is not None:
        place.server.ask("ALTER ROLE dragoman SET synchronous_commit = off")

    async def story(store: Store) -> None:
        found = await store.database.write(lambda db: db.exec_driver_sql(asked).scalar_one())
        assert found == ("on" if place.url else 2)

    try:
        place.kept(story)
    finally:
        if place.server is not None:
            place.server.ask("ALTER ROLE dragoman RESET synchronous_commit")


def test_what_was_written_is_read_by_whoever_reads_next(place: Place) -> None:
    async def story(store: Store) -> None:
        other = place.store()
        for number in range(30):
            await store.sessions.put(session("s", f"m{number}"))
            found = await other.sessions.get("s", owner=ANN)
            assert found is not None
            assert found.model == f"m{number}"
        await other.close()

    place.kept(story)


def test_all_that_was_asked_for_before_the_end_is_done(place: Place) -> None:
    async def story() -> None:
        store = place.store()
        writes = [asyncio.ensure_future(store.sessions.put(session(f"s{n}"))) for n in range(200)]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*writes)

    asyncio.run(story())
    assert place.ask("SELECT count(*) FROM sessions") == [(200,)]


def test_work_that_comes_while_it_ends_is_done_too(place: Place) -> None:
    async def story() -> None:
        store = place.store()
        held = threading.Event()
        work = [asyncio.ensure_future(store.database.write(lambda _: held.wait(10) and None))]
        await asyncio.sleep(0)
        end = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        work += [asyncio.ensure_future(store.sessions.put(session(f"s{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(end, *work)
        assert await store.sessions.get("s2", owner=ANN)
        await store.close()

    asyncio.run(asyncio.wait_for(story(), 30))


# Several at once.


@contextlib.contextmanager
def held(place: Place) -> Iterator[Callable[[], None]]:
    """Another gateway is writing, until the context ends or it is told to stop."""
    if place.server is None:
        db: Any = sqlite3.connect(place.file, isolation_level=None, check_same_thread=False)
        db.execute("BEGIN IMMEDIATE")
    else:
        from gateway.store.postgres import WRITING

        db = psycopg.connect(place.url)
        db.execute(f"SELECT pg_advisory_xact_lock({WRITING})")
    try:
        yield db.rollback
    finally:
        db.close()


def test_a_read_waits_for_no_write_and_a_write_for_its_turn(place: Place) -> None:
    async def story(store: Store) -> None:
        await store.sessions.put(session("s", "old"))
        with held(place) as let_go:
            write = asyncio.ensure_future(store.sessions.put(session("s", "new")))
            for _ in range(20):
                found = await store.sessions.get("s", owner=ANN)
                assert found is not None
                assert found.model == "old"
            assert not write.done()
            let_go()
            await write
        found = await store.sessions.get("s", owner=ANN)
        assert found is not None
        assert found.model == "new"

    place.kept(story)


def test_gateways_that_start_together_make_one_store(fresh: Place) -> None:
    async def story() -> None:
        stores = [fresh.store() for _ in range(4)]
        await asyncio.gather(*(store.sessions.put(session(f"s{n}")) for n, store in enumerate(stores)))
        for store in stores:
            assert all([await store.sessions.get(f"s{n}", owner=ANN) for n in range(4)])
            await store.close()

    asyncio.run(story())
    assert fresh.ask("SELECT count(*) FROM dragoman_version") == [(1,)]


def test_a_defect_is_its_callers_alone(place: Place) -> None:
    async def story(store: Store) -> None:
        def fails(_: Any) -> None:
            raise ZeroDivisionError

        writes = (store.sessions.put(session("a")), store.database.write(fails), store.sessions.put(session("b")))
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), ZeroDivisionError, type(None)]
        with pytest.raises(ZeroDivisionError):
            await store.database.read(fails)
        assert await store.sessions.get("a", owner=ANN)
        assert await store.sessions.get("b", owner=ANN)
        assert store.database.trouble is None

    place.kept(story)


_TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Cc", "Cs"]), max_size=8) | st.text("\\u0d\0\ud800é")


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_TEXTS, min_size=5, max_size=20))
def test_any_text_comes_back(place: Place, texts: list[str]) -> None:
    async def story(store: Store) -> None:
        for text in texts:
            await store.sessions.put(Session(id=text, owner=text, model=text))
        for text in texts:
            found = await store.sessions.get(text, owner=text)
            assert found is not None
            assert found.model == text

    place.kept(story)


def test_nobody_imports_the_library_before_it_is_used() -> None:
    code = "import sys, gateway.__main__, gateway.web.listeners, gateway.store; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"


# The schema.


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


# SQLite's file.


def test_a_full_disk_is_said_and_passes(file: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def story(store: Store) -> None:
        await store.responses.put(row("a"))
        used = await store.database.write(lambda db: db.exec_driver_sql("PRAGMA page_count").scalar_one())

        def pages(count: int) -> Callable[[Any], None]:
            return lambda db: db.exec_driver_sql(f"PRAGMA max_page_count = {count}") and None

        await store.database.write(pages(used + 4))
        results = await asyncio.gather(
            *(store.responses.put(row(id, size=size)) for id, size in (("big", 200_000), ("small", 9))),
            return_exceptions=True,
        )
        assert isinstance(results[0], StorageFailed)
        assert (results[0].status, results[0].code) == (507, "insufficient_storage")
        assert results[0].message == "this cannot be stored: the disk is full"
        assert results[1] is None  # there was room for this one
        with pytest.raises(StorageFailed):
            await store.responses.put(row("big", size=200_000))
        with pytest.raises(StorageFailed):
            await store.responses.ready()
        assert await store.responses.get("a", owner=ANN) is not None
        assert await store.responses.get("big", owner=ANN) is None
        await store.database.write(pages(1000))
        await store.responses.ready()
        await store.responses.ready()
        await store.responses.put(row("big", size=200_000))
        assert await store.responses.get("big", owner=ANN) is not None
        assert await store.responses.get("", owner="") is None

    file.kept(story)
    assert "full" in caplog.text
    assert caplog.text.count("can be written again") == 2


def test_a_disk_that_fails_in_the_middle_of_a_commit_is_said_and_passes(file: Place) -> None:
    """Small writes find out that there is no room only when they are committed."""

    async def story(store: Store) -> None:
        await store.responses.put(row("a"))
        journal = next(file.folder.glob("*.db-wal"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size, hard))
        try:
            for _ in range(2):
                with pytest.raises(StorageFailed, match="the disk"):
                    await store.responses.put(row("b"))
            assert await store.responses.get("a", owner=ANN) is not None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.responses.put(row("b"))
        assert await store.responses.get("b", owner=ANN) is not None

    file.kept(story)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    async def story(store: Store) -> None:
        with pytest.raises(StorageFailed, match="cannot be stored") as caught:
            await store.responses.put(row("a"))
        assert str(tmp_path) not in caught.value.message
        with pytest.raises(StorageFailed):
            await store.responses.ready()

    Place(tmp_path / "file" / "data").kept(story)


@pytest.mark.parametrize("damage", ["all", "middle"])
def test_a_damaged_store_is_told_of_and_left_alone(file: Place, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fill(store: Store) -> None:
        for number in range(100):
            await store.responses.put(row(f"r{number}", size=2000))

    file.kept(fill)
    content = bytearray(file.file.read_bytes())
    if damage == "all":
        content[:] = b"no database, whatever it is " * (len(content) // 28)
    else:
        content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    file.file.write_bytes(content)

    async def story(store: Store) -> None:
        with pytest.raises(StorageFailed, match="damaged") as caught:
            await store.responses.get("r50", owner=ANN)
        assert caught.value.code == "storage_damaged"
        with pytest.raises(StorageFailed, match="damaged"):
            await store.responses.ready()
        with pytest.raises(StorageFailed, match="damaged"):
            await store.responses.put(row("new"))

    file.kept(story)
    assert file.file.read_bytes() == bytes(content)
    assert caplog.text.count("is damaged") == 1


def test_signs_of_life(tmp_path: Path) -> None:
    one, two = alive.Files(tmp_path), alive.Files(tmp_path)
    one.show()
    one.show()
    assert two.sees(one.token)
    assert two.sees(two.token)
    assert not two.sees("0123")
    one.hide()
    one.hide()
    assert not two.sees(one.token)


# PostgreSQL's server.


@pytest.fixture
def served(postgres: Server, tmp_path: Path) -> Iterator[Place]:
    """A database of the server, which runs again afterwards whatever became of it."""
    yield Place(tmp_path / "data", postgres.database(), postgres)
    with contextlib.suppress(Exception):
        postgres.ask("SELECT 1")
        return
    postgres.start()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_was_started_again_is_not_even_noticed(served: Place, how: int) -> None:
    async def story(store: Store) -> None:
        await store.responses.put(row("a", status="queued"))
        assert await store.sessions.get("s", owner=ANN) is None
        assert served.server is not None
        served.server.stop(how)
        served.server.start()
        assert await store.responses.settle("a", status="completed", object=b"done")
        found = await store.responses.get("a", owner=ANN)
        assert found is not None
        assert found.object == b"done"

    served.kept(story)


def test_a_server_that_is_down_is_told_of_and_comes_back(
    served: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "PULSE", 0.5)

    async def story(store: Store) -> None:
        assert served.server is not None
        one, two = store, served.store()
        await one.responses.put(row("a", status="queued"))
        served.server.stop()
        for attempt in (
            lambda: one.sessions.put(session("s")),
            lambda: one.responses.get("a", owner=ANN),
            one.responses.ready,
        ):
            began = time.monotonic()
            tries = await asyncio.gather(*(attempt() for _ in range(100)), return_exceptions=True)
            assert time.monotonic() - began < 5
            assert {str(error) for error in tries} == {"this cannot be stored: the database cannot be reached"}
            assert {type(error) for error in tries} == {StorageFailed}
        served.server.start()
        began = time.monotonic()
        while True:
            with contextlib.suppress(StorageFailed):
                await one.sessions.put(session("s"))
                break
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 5
        await one.responses.ready()
        # Whose lock went with the server has it again, and is not taken for dead meanwhile.
        while True:
            found = await two.responses.get("a", owner=ANN)
            assert found is not None
            assert found.status == "queued"
            if served.ask(f"SELECT 1 FROM pg_locks WHERE classid::bigint = {int(one.database.alive.token[:8], 16)}"):
                break
            await asyncio.sleep(0.05)
        await two.close()

    served.kept(story)
    assert caplog.text.count("cannot be reached") == 1
    assert PASSWORD not in caplog.text


def test_a_server_that_ends_in_the_middle_loses_and_doubles_nothing(served: Place) -> None:
    async def story(store: Store) -> None:
        assert served.server is not None
        done: list[str] = []
        enough: list[int] = []

        async def write(name: str) -> None:
            number = 0
            while not enough or len(done) < enough[0]:
                with contextlib.suppress(StorageFailed):
                    turn = await store.conversations.ask("c", owner=ANN, prompt=f"{name}{number}", model="m")
                    assert turn is not None
                    done.append(turn.prompt)
                number += 1
                await asyncio.sleep(0)

        await store.conversations.start("c", owner=ANN)
        tasks = [asyncio.ensure_future(write(name)) for name in "abcd"]
        for how in (signal.SIGINT, signal.SIGQUIT):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(served.server.stop, how)
            await asyncio.to_thread(served.server.start)
        enough.append(len(done) + 20)
        await asyncio.gather(*tasks)
        turns = await store.conversations.turns("c", owner=ANN)
        assert turns is not None
        prompts = [turn.prompt for turn in turns]
        assert set(done) <= set(prompts)
        assert len(set(prompts)) == len(prompts)
        for name in "abcd":
            own = [int(prompt[1:]) for prompt in prompts if prompt[0] == name]
            assert own == sorted(own)

    served.kept(story)


@pytest.mark.parametrize("happened", [True, False])
def test_a_commit_whose_answer_was_lost_is_looked_up(served: Place, happened: bool) -> None:
    async def story(store: Store) -> None:
        from sqlalchemy import event

        await store.conversations.start("c", owner=ANN)
        engine = await store.database.write(lambda db: db.engine)
        cuts = [1]

        def cut(db: Any) -> None:
            if cuts.pop() if cuts else False:
                raw = db.connection.dbapi_connection
                if happened:
                    raw.commit()
                raw.close()

        event.listen(engine, "commit", cut)
        turn = await store.conversations.ask("c", owner=ANN, prompt="hello", model="m")
        assert turn is not None
        assert turn.number == 1
        assert not cuts
        await store.sessions.put(session("s"))
        assert len(await store.conversations.turns("c", owner=ANN) or ()) == 1

    served.kept(story)


def test_no_secret_is_told(served: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (
        served.url.replace(PASSWORD, "another-secret"),
        served.url.replace("/t", "/no-such-"),
        f"postgresql://dragoman:{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://dragoman:{PASSWORD}@no-such-host.invalid/x",
        f"postgresql://dragoman:{PASSWORD}%zz@127.0.0.1:1/x",  # of which the driver quotes a part
    ):

        async def story(store: Store) -> None:
            with pytest.raises(StorageFailed, match="this cannot be stored") as caught:
                await store.sessions.put(session("s"))
            assert "secret" not in caught.value.message
            assert "dragoman" not in caught.value.message

        Place(served.folder, url).kept(story)
    assert "secret" not in caplog.text
    for bad in (f"mysql://x:{PASSWORD}@y/z", f"postgresql://x:{PASSWORD}@y:z%%/&/w", "postgresql://%zz", "/a/file"):
        with pytest.raises(ConfigError, match=r"postgresql://user:password@host/name - at `\$.database`") as caught:
            settle({"database": bad}, base=Path(), environ={})
        assert PASSWORD not in str(caught.value)
        assert caught.value.__cause__ is None
    settle({"database": served.url}, base=Path(), environ={})
    monkeypatch.setattr("gateway.config.have", lambda *_: False)
    with pytest.raises(ConfigError, match=r"pip install 'dragoman\[postgres\]' - at `\$.database`"):
        settle({"database": served.url}, base=Path(), environ={})


# Who goes.


@given(
    things=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=30),
    limit=st.integers(0, 12),
    size=st.integers(0, 60),
)
def test_only_as_many_go_as_must_and_of_those_who_have_most(
    things: list[tuple[str, int, bool]], limit: int, size: int
) -> None:
    """Each thing: whose, its bytes, and whether it may go."""
    own = {name: [number for number, thing in enumerate(things) if thing[0] == name] for name in "abc"}
    held = {name: (len(mine), sum(things[n][1] for n in mine)) for name, mine in own.items() if mine}
    gone, *_ = beyond(held, lambda name: ((n, things[n][1]) for n in own[name] if things[n][2]), limit=limit, size=size)
    assert len(set(gone)) == len(gone)
    assert all(things[n][2] for n in gone)
    rest = [n for n in range(len(things)) if n not in gone]
    fits = len(rest) <= limit and sum(things[n][1] for n in rest) <= size
    assert fits or not any(things[n][2] for n in rest)
    if gone:  # the last that went was one too many
        more = [*rest, gone[-1]]
        assert len(more) > limit or sum(things[n][1] for n in more) > size
    for name in "abc":  # oldest first
        assert [n for n in own[name] if things[n][2]][: len([n for n in gone if n in own[name]])] == [
            n for n in gone if n in own[name]
        ]
