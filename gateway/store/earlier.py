"""What earlier versions kept: the responses of ``responses.db`` are taken over once, and the file is set aside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canonical.errors import StorageFailed
from gateway.store.schema import NEWER

if TYPE_CHECKING:
    from sqlalchemy import Connection

ASIDE = "responses.db.imported"
STEPS = 2
"""Versions that the file had."""
PIECE = 100
"""Rows in memory at once."""

_ROWS = """SELECT id, owner, previous, tree, status, runner, input, object, log,
length(input) + length(object) + length(log) AS size FROM responses ORDER BY number"""
_TREES = "SELECT t.id, min(r.owner) AS owner, t.used FROM trees t JOIN responses r ON r.tree = t.id GROUP BY t.id"


def take_over(file: Path, db: Connection) -> None:
    """Copy all of it that is not there already, within the transaction that ``db`` is in.

    Raises:
        StorageFailed: a newer dragoman has written it.
        sqlite3.Error: it cannot be read.
    """
    from sqlalchemy.dialects.sqlite import insert

    from gateway.store.sql.tables import responses, trees

    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as old:
        old.row_factory = sqlite3.Row
        old.execute("BEGIN IMMEDIATE")  # nothing is added meanwhile
        (version,) = old.execute("PRAGMA user_version").fetchone()
        if version > STEPS:
            raise StorageFailed(NEWER)
        if version:
            for rows in _pieces(old.execute(_ROWS)):
                db.execute(insert(responses).on_conflict_do_nothing(), rows)
            for rows in _pieces(old.execute(_TREES)):
                db.execute(insert(trees).on_conflict_do_nothing(), rows)


def set_aside(file: Path) -> None:
    """Out of the way, and not out of the world."""
    aside, number = file.with_name(ASIDE), 1
    while aside.exists():
        number += 1
        aside = file.with_name(f"{ASIDE}.{number}")
    with contextlib.suppress(FileNotFoundError):  # another gateway was faster
        file.rename(aside)


def _pieces(found: sqlite3.Cursor) -> Iterator[list[dict[str, Any]]]:
    while rows := found.fetchmany(PIECE):
        yield [dict(row) for row in rows]
