"""The schema of a database, taken to its newest version when it is opened. Imported in the store's threads alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, select, table

from canonical.errors import StorageFailed
from gateway.store.sql.tables import VERSIONS

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "2"
"""The newest version: where a database has it, alembic is not even imported."""
NEWER = "the store was written by a newer dragoman, and is left as it is"

_FOLDER = Path(__file__).parent / "migrations"


def version(db: Connection) -> str | None:
    """The version of the schema; None: there is none yet."""
    if not db.dialect.has_table(db, VERSIONS):
        return None
    found: str | None = db.execute(select(column("version_num")).select_from(table(VERSIONS))).scalar()
    return found


def upgrade(db: Connection) -> None:
    """Take it to the newest version, within the transaction that ``db`` is in and that keeps all others out.

    Raises:
        StorageFailed: it is newer than that.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    found = version(db)
    if found is not None and found not in {
        step.revision for step in ScriptDirectory.from_config(config).walk_revisions()
    }:
        raise StorageFailed(NEWER)
    config.attributes["connection"] = db
    command.upgrade(config, "head")
