"""PostgreSQL's server, which ends, comes back, and keeps what it acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import StorageFailed
from gateway.config import ConfigError, settle
from gateway.store import Store, alive
from tests.postgres import PASSWORD, Server
from tests.stored import ANN, Place, row, session


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
