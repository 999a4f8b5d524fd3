"""Responses, as they were kept before; sessions and conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, *, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, primary_key=primary_key)


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "responses",
        sa.Column("number", _NUMBER, primary_key=True),
        _text("id"),
        _text("owner"),
        sa.Column("previous", sa.Text),
        _text("tree"),
        _text("status"),
        _text("runner"),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("object", sa.LargeBinary, nullable=False),
        sa.Column("log", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("id", name="responses_by_id"),
    )
    op.create_index("responses_by_tree", "responses", ["tree"])
    op.create_index("responses_by_owner", "responses", ["owner", "size"])
    op.create_table(
        "trees",
        _text("id", primary_key=True),
        _text("owner"),
        sa.Column("used", sa.Double, nullable=False),
    )
    op.create_index("trees_by_use", "trees", ["used"])
    op.create_index("trees_by_owner", "trees", ["owner", "used"])
    op.create_table(
        "sessions",
        _text("owner", primary_key=True),
        _text("id", primary_key=True),
        _text("model"),
        sa.Column("used", sa.Double, nullable=False),
    )
    op.create_index("sessions_by_use", "sessions", ["used"])
    op.create_index("sessions_by_owner", "sessions", ["owner", "used"])
    op.create_table(
        "conversations",
        sa.Column("number", _NUMBER, primary_key=True),
        _text("owner"),
        _text("id"),
        sa.Column("used", sa.Double, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("owner", "id", name="conversations_by_id"),
    )
    op.create_index("conversations_by_use", "conversations", ["used"])
    op.create_index("conversations_by_owner", "conversations", ["owner", "used", "size"])
    op.create_table(
        "turns",
        sa.Column("conversation", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        _text("state"),
        _text("runner"),
        _text("model"),
        sa.Column("asked", sa.BigInteger, nullable=False),
        sa.Column("answered", sa.BigInteger),
        sa.Column("cut", sa.Boolean, nullable=False),
        sa.Column("since", sa.Integer, nullable=False),
        _text("error"),
        _text("prompt"),
        _text("answer"),
    )
