"""The tables, as the last migration leaves them.

Everything belongs to an ``owner``, which stands for a key. Times are seconds since 1970.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_Number = BigInteger().with_variant(Integer, "sqlite")


class Words(TypeDecorator[str]):
    """Any text, where PostgreSQL's has no NUL and neither database has half a surrogate pair: those are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """What is written."""
        if value is None or (value.isascii() and "\\" not in value and "\0" not in value):
            return value
        value = value.replace("\\", "\\\\").replace("\0", "\\0")
        return value.encode("utf-8", "backslashreplace").decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """What was meant."""
        if value is None or "\\" not in value:
            return value
        pieces = value.split("\\\\")
        return "\\".join(_unescaped(piece) if "\\" in piece else piece for piece in pieces)


def _unescaped(piece: str) -> str:
    first, *rest = piece.replace("\\0", "\0").split("\\u")
    return first + "".join(chr(int(more[:4], 16)) + more[4:] for more in rest)


VERSIONS = "dragoman_version"
"""The table that tells which version of the schema this is; alembic's own name for it may be another application's."""

metadata = MetaData()


def _words(name: str, **more: Any) -> Column[str]:
    return Column(name, Words, nullable=False, **more)


responses = Table(
    "responses",
    metadata,
    Column("number", _Number, primary_key=True),
    _words("id"),
    _words("owner"),
    Column("previous", Words),
    _words("tree"),
    _words("status"),
    _words("runner"),
    Column("input", LargeBinary, nullable=False),
    Column("object", LargeBinary, nullable=False),
    Column("log", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    UniqueConstraint("id", name="responses_by_id"),
    Index("responses_by_tree", "tree"),
    Index("responses_by_owner", "owner", "size"),
)
"""Answers; ``previous`` is the one that one goes on from."""

trees = Table(
    "trees",
    metadata,
    _words("id", primary_key=True),
    _words("owner"),
    Column("used", Double, nullable=False),
    Index("trees_by_use", "used"),
    Index("trees_by_owner", "owner", "used"),
)
"""Responses that go on from one another, and when one of them was used last."""

sessions = Table(
    "sessions",
    metadata,
    _words("owner", primary_key=True),
    _words("id", primary_key=True),
    _words("model"),
    Column("used", Double, nullable=False),
    Index("sessions_by_use", "used"),
    Index("sessions_by_owner", "owner", "used"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("number", _Number, primary_key=True),
    _words("owner"),
    _words("id"),
    Column("used", Double, nullable=False),
    Column("size", BigInteger, nullable=False),
    UniqueConstraint("owner", "id", name="conversations_by_id"),
    Index("conversations_by_use", "used"),
    Index("conversations_by_owner", "owner", "used", "size"),
)

turns = Table(
    "turns",
    metadata,
    Column("conversation", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _words("state"),
    _words("runner"),
    _words("model"),
    Column("asked", BigInteger, nullable=False),
    Column("answered", BigInteger),
    Column("cut", Boolean, nullable=False),
    Column("since", Integer, nullable=False),
    _words("error"),
    _words("prompt"),
    _words("answer"),
)
"""What was said in a conversation, and what was answered; the order is that of their numbers. Long texts stand behind what is looked for."""

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True),
    _words("id"),
    _words("owner"),
    _words("state"),
    Column("priority", Integer, nullable=False),
    _words("dialect"),
    _words("model"),
    Column("cost", Double, nullable=False),
    Column("created", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("finished", Double, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    _words("runner"),
    Column("beat", Double, nullable=False),
    _words("waiter"),
    Column("stopping", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    _words("error"),
    _words("code"),
    Column("status", Integer, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Column("results", LargeBinary, nullable=False),
    UniqueConstraint("id", name="jobs_by_id"),
    Index("jobs_by_state", "state", "number"),
    Index("jobs_by_owner", "owner", "size"),
    Index("jobs_by_end", "owner", "finished"),
    Index("jobs_by_model", "model", "state", "finished"),
)
"""Pictures that are made, and those that were. ``attempt`` counts how often it was begun, ``runner`` is who works on it and
``waiter`` whose client waits for it; ``cost`` is steps times megapixels."""

job_files = Table(
    "job_files",
    metadata,
    _words("name", primary_key=True),
    _words("job", primary_key=True),
    _words("owner"),
    _words("digest"),
    Column("input", Boolean, nullable=False),
    Index("job_files_by_job", "job"),
    Index("job_files_by_digest", "owner", "digest"),
)
"""The files of jobs: pictures, and the images that they begin with, which several may share."""

job_turns = Table(
    "job_turns",
    metadata,
    _words("owner", primary_key=True),
    Column("turn", BigInteger, nullable=False),
)
"""When each owner had a job begun last, by a count of all."""
