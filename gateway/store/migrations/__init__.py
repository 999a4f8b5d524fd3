"""The schema, version by version: alembic's folder. ``gateway.store.schema`` runs it."""
