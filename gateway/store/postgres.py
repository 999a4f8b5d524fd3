"""The store in a PostgreSQL server.

Writers take turns, by a lock of the database's own: they see what SQLite's see, and none fails because of another.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from canonical.errors import StorageFailed
from gateway.store.alive import Locks
from gateway.store.source import Failure

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, Engine

READERS = 4
WRITING = 0x647261676F6D616E
"""The key of the writers' lock."""
PAUSE = 1.0
"""Seconds in which a server that could not be reached is not tried again."""
PATIENCE = 5.0
"""Seconds for a server to come back in the middle of a commit, and to say what became of it."""

_PARAMETERS = {
    "application_name": "dragoman",
    "connect_timeout": "3",
    # A peer that is gone without a word is found out.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
_SETTINGS = """
SELECT pg_postmaster_start_time(), set_config('lock_timeout', '30s', false),
    set_config('idle_in_transaction_session_timeout', '20s', false), set_config('client_encoding', 'utf8', false),
    set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false),
    CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', false) END
"""
_UNREACHABLE = "the database cannot be reached"
_UNKNOWN = "the connection to the database was lost; whether this was stored is not known"
_LOST = ("08", "57P", "25P03")
_WORDS = {
    "08": _UNREACHABLE,
    "28": "the database refuses this gateway",
    "3D": "there is no such database",
    "42501": "the database refuses this gateway",
    "25006": "the database may only be read",
    "40": "another gateway holds the database",
    "53100": "the disk of the database is full",
    "53": "the database has no room",
    "55P03": "another gateway holds the database",
    "57P": _UNREACHABLE,
    "25P03": _UNREACHABLE,
}
_AGAIN = ("40001", "40P01")


def check_url(url: str) -> None:
    """Raises ValueError, which does not quote it, where ``url`` is none of a PostgreSQL database."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if url.startswith(("postgresql://", "postgres://")):
        with contextlib.suppress(psycopg.Error):
            conninfo_to_dict(url)
            return
    raise ValueError("a database is postgresql://user:password@host/name")


class PostgresServer:
    """The database of one URL."""

    readers = READERS
    name = "the PostgreSQL store"
    exists = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._parameters: dict[str, Any] = {}
        self._started: Any = None
        self._failed: tuple[float, Exception] | None = None
        self.alive = Locks(self._connected)

    def glance(self, question: str) -> bool | None:  # noqa: ARG002
        """A server has to be asked properly."""
        return None

    def open(self, *, writes: bool) -> Connection:
        """A connection."""
        with self._lock:
            if self._engine is None:
                self._engine = self._made()
        return self._engine.connect().execution_options(isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT")

    def lock(self, db: Connection) -> str:
        """Wait for the other writers."""
        _, name = db.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING}), pg_current_xact_id()::text").one()
        return cast("str", name)

    def committed(self, transaction: str) -> bool:
        """Ask the server, as soon as it is back."""
        import psycopg

        deadline = time.monotonic() + PATIENCE
        started = self._started
        while time.monotonic() < deadline:
            try:
                with self._connected() as db:
                    found = db.execute("SELECT pg_xact_status(%s::text::xid8)", (transaction,)).fetchone()
            except psycopg.Error as error:
                if getattr(error, "sqlstate", None) == "22023":  # it has never heard of it
                    return False
                time.sleep(0.1)
                continue
            if found != ("in progress",):
                if found == ("committed",) and self._started != started:
                    break  # or another one that has its name, if the server died and not merely ended
                return found == ("committed",)
            time.sleep(0.05)
        raise StorageFailed(f"this cannot be stored: {_UNKNOWN}")

    def failure(self, error: Exception) -> Failure | None:
        """What the server or the way to it says."""
        if isinstance(error, StorageFailed):
            return Failure(error)
        import psycopg

        original = getattr(error, "orig", error)
        if not isinstance(original, psycopg.Error):
            return None
        state = original.sqlstate or ("08" if isinstance(original, psycopg.OperationalError) else "")
        words = next((_WORDS[state[:length]] for length in (5, 3, 2) if state[:length] in _WORDS), "the database fails")
        lost = state.startswith(_LOST) or bool(getattr(error, "connection_invalidated", False))
        # Without a state it is the driver that speaks, and may quote the URL: of a connection, but never what is wrong in it.
        said = original.diag.message_primary or (" ".join(str(original).split()) if state else type(original).__name__)
        failed = StorageFailed(f"this cannot be stored: {words}")
        return Failure(failed, said, lost=lost, passing=lost or state in _AGAIN)

    def close(self) -> None:
        """Nothing is held."""
        self._engine = None

    def _made(self) -> Engine:
        from sqlalchemy import NullPool, create_engine

        from gateway.store import schema

        made = create_engine("postgresql+psycopg://", creator=self._connected, poolclass=NullPool)
        with made.connect() as db:
            if schema.version(db) != schema.HEAD:
                db.rollback()
                with db.begin():
                    self.lock(db)
                    schema.upgrade(db)
        return made

    def _connected(self) -> psycopg.Connection[Any]:
        """A connection, or the error of a moment ago."""
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._failed[1].with_traceback(None)
        try:
            if not self._parameters:
                self._parameters = {**_PARAMETERS, **conninfo_to_dict(self._url)}
            db = psycopg.connect(autocommit=True, **self._parameters)
            try:
                found = db.execute(_SETTINGS).fetchone()
                assert found is not None
                self._started = found[0]
                db.autocommit = False
            except BaseException:
                db.close()
                raise
        except psycopg.Error as error:
            self._failed = time.monotonic() + PAUSE, error
            raise
        self._failed = None
        return db
