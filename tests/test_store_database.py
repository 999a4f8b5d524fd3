"""What the store stands on, whichever database it is: durable, shared, and fair to all who keep things. (Reliability 6)"""

from __future__ import annotations

import asyncio
import contextlib
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
from gateway.store import Session, Store, alive, database
from gateway.store.evicting import beyond
from tests.serving import ROOT
from tests.stored import ANN, Place, session

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


def test_a_read_that_is_not_answered_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.05)
    answers = threading.Event()
    ran: list[int] = []

    def stuck(_: Any) -> None:
        ran.append(1)
        answers.wait()

    async def story(store: Store) -> None:
        await store.sessions.put(session("a"))
        try:
            for _ in range(3):  # more than there are threads that read
                with pytest.raises(StorageFailed, match="does not answer"):
                    await store.database.read(stuck)
        finally:
            answers.set()
        monkeypatch.setattr(database, "PATIENCE", 60.0)
        for _ in range(3):
            assert await store.sessions.get("a", owner=ANN) is not None
        assert len(ran) == 2  # nobody waited for the third any more

    Place(tmp_path / "data").kept(story)


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
