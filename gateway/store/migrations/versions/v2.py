"""Jobs, with their files and turns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _text(name: str, *, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, primary_key=primary_key)


def _double(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True),
        _text("id"),
        _text("owner"),
        _text("state"),
        _integer("priority"),
        _text("dialect"),
        _text("model"),
        _double("cost"),
        _double("created"),
        _double("started"),
        _double("finished"),
        _integer("done"),
        _integer("total"),
        _integer("attempt"),
        _text("runner"),
        _double("beat"),
        _text("waiter"),
        sa.Column("stopping", sa.Boolean, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        _text("error"),
        _text("code"),
        _integer("status"),
        sa.Column("request", sa.LargeBinary, nullable=False),
        sa.Column("inputs", sa.LargeBinary, nullable=False),
        sa.Column("results", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("id", name="jobs_by_id"),
    )
    op.create_index("jobs_by_state", "jobs", ["state", "number"])
    op.create_index("jobs_by_owner", "jobs", ["owner", "size"])
    op.create_index("jobs_by_end", "jobs", ["owner", "finished"])
    op.create_index("jobs_by_model", "jobs", ["model", "state", "finished"])
    op.create_table(
        "job_files",
        _text("name", primary_key=True),
        _text("job", primary_key=True),
        _text("owner"),
        _text("digest"),
        sa.Column("input", sa.Boolean, nullable=False),
    )
    op.create_index("job_files_by_job", "job_files", ["job"])
    op.create_index("job_files_by_digest", "job_files", ["owner", "digest"])
    op.create_table(
        "job_turns",
        _text("owner", primary_key=True),
        sa.Column("turn", sa.BigInteger, nullable=False),
    )
