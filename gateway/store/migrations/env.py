"""What alembic runs: all steps on the connection it is given, in the transaction that this one is in."""

from __future__ import annotations

from alembic import context

from gateway.store.sql.tables import VERSIONS, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSIONS,
    transactional_ddl=True,  # SQLite's too, where transactions are begun by hand
)
with context.begin_transaction():
    context.run_migrations()
