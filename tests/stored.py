"""Places to keep things in, for tests: every promise of the store holds in each of them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Config, Conversations, Responses, Sessions
from gateway.store import FILE, Row, Session, Store
from tests.postgres import Server, server

ANN, BEN = "ann", "ben"
BIG = 10**9


def row(id: str, size: int = 9, **more: Any) -> Row:
    """A response of Ann's."""
    return Row(id=id, owner=ANN, input=b"[]", object=b"x" * size, **{"status": "completed", **more})


def session(id: str, model: str = "m") -> Session:
    """One of Ann's."""
    return Session(id=id, owner=ANN, model=model)


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """One empty database, whichever kind it is."""

    def __init__(self, folder: Path, url: str = "", made: Server | None = None) -> None:
        self.folder = folder
        self.url = url
        self.server = made
        self.numbers = itertools.count()
        """For names that nobody has had yet."""

    @property
    def file(self) -> Path:
        return self.folder / FILE

    def config(self, *, keep: float = -1, limit: int = 10_000, size: int = BIG) -> Config:
        return Config(
            database=self.url,
            responses=Responses(keep=keep, limit=limit, size=size),
            sessions=Sessions(keep=keep, limit=limit),
            conversations=Conversations(keep=keep, limit=limit, size=size),
        )

    def store(self, *, clock: Callable[[], float] | None = None, **bounds: Any) -> Store:
        return Store(self.config(**bounds), self.folder, clock=clock or Clock())

    def kept(self, story: Callable[[Store], Awaitable[None]], **bounds: Any) -> None:
        """Live a story with one store, and close it."""

        async def told() -> None:
            store = self.store(**bounds)
            try:
                await story(store)
            finally:
                await store.close()

        asyncio.run(told())

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """What the database answers somebody else."""
        if self.server is not None:
            name = self.url.split("@/")[1].split("?")[0]
            return self.server.ask(statement, name)
        with contextlib.closing(sqlite3.connect(self.file, isolation_level=None)) as db:
            return db.execute(statement).fetchall()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for all tests of a process."""
    try:
        with server() as made:
            yield made
    except FileNotFoundError as error:
        if os.environ.get("EXAMPLES") == "ci":
            raise
        pytest.skip(f"{error}")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database of each kind with nothing in it."""
    if request.param == "sqlite":
        return Place(tmp_path / "data")
    made: Server = request.getfixturevalue("postgres")
    return Place(tmp_path / "data", made.emptied(), made)


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database of each kind in which not even a table is."""
    if request.param == "sqlite":
        return Place(tmp_path / "data")
    made: Server = request.getfixturevalue("postgres")
    return Place(tmp_path / "data", made.database(), made)


@pytest.fixture
def file(tmp_path: Path) -> Place:
    """Where it is SQLite's file alone that matters, or makes no difference which database it is."""
    return Place(tmp_path / "data")
