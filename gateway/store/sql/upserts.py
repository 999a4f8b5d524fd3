"""Rows that are added, or take the place of those of the same key: each database has its own words for it."""

from __future__ import annotations

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import postgresql, sqlite


def upserts(table: Table, key: str) -> dict[str, Insert]:
    """The statement by the name of a database. All columns are given, but for a number that counts itself."""
    names = [column.name for column in table.columns if column.name not in {key, "number"}]
    ours, theirs = sqlite.insert(table), postgresql.insert(table)
    return {
        "sqlite": ours.on_conflict_do_update(index_elements=[key], set_={name: ours.excluded[name] for name in names}),
        "postgresql": theirs.on_conflict_do_update(
            index_elements=[key], set_={name: theirs.excluded[name] for name in names}
        ),
    }
