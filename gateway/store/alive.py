"""Which gateways still run: several may share a store. Each holds a lock, which is let go of however its process ends."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from sqlalchemy import Connection

FOLDER = "running"
PULSE = 2.0
"""Seconds between two looks at the connection that holds a server's lock."""
GRACE = 5
"""Seconds from a server's start in which those who held a lock may come back."""

_SEEN = """
SELECT EXISTS (
    SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = %(high)s AND objid::bigint = %(low)s
) OR clock_timestamp() - pg_postmaster_start_time() < make_interval(secs => %(grace)s)
"""


class Files:
    """One gateway's sign of life where they share a folder: a lock on a file that bears its token.

    The lock is SQLite's own, which works wherever the store does.
    """

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        self._folder = folder / FOLDER
        self._held: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def show(self) -> None:
        """Be seen to live, from now on. Raises OSError or sqlite3.Error where no file can be made."""
        with self._lock:
            if self._held is None:
                self._folder.mkdir(exist_ok=True)
                self._held = sqlite3.connect(
                    self._folder / self.token, isolation_level=None, timeout=0, check_same_thread=False
                )
                self._held.execute("BEGIN EXCLUSIVE")

    def sees(self, token: str, db: Connection | None = None) -> bool:  # noqa: ARG002  servers are asked by it
        """Whether the gateway of ``token`` lives. What a dead one left is cleared away."""
        if token == self.token:
            return True
        file = self._folder / token
        if not token or not file.is_file():
            return False
        with self._lock, contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as found:
            try:
                found.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return True
        file.unlink(missing_ok=True)
        return False

    def hide(self) -> None:
        """The end."""
        with self._lock:
            if self._held is not None:
                self._held.close()
                self._held = None
                (self._folder / self.token).unlink(missing_ok=True)
                self.token = secrets.token_hex(8)


class Locks:
    """The same where the store is a PostgreSQL server: a lock on a number, held for as long as a connection lives.

    The connection is this lock's alone, and comes back by itself.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self.token = secrets.token_hex(8)
        self._connect = connect
        self._held: psycopg.Connection[Any] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None

    def show(self) -> None:
        """Be seen to live, from now on. Raises psycopg.Error where the server cannot be reached."""
        with self._lock:
            if self._held is None:
                self._hold()
            if self._watch is None:
                self._ended.clear()
                self._watch = threading.Thread(target=self._keep, name="store alive", daemon=True)
                self._watch.start()

    def sees(self, token: str, db: Connection) -> bool:
        """Whether the gateway of ``token`` lives. Just after the server's own start nobody is thought dead: they come back."""
        if token == self.token:
            return True
        if not token:
            return False
        number = int(token, 16)
        found = db.exec_driver_sql(_SEEN, {"high": number >> 32, "low": number & 0xFFFFFFFF, "grace": GRACE})
        return bool(found.scalar())

    def hide(self) -> None:
        """The end."""
        self._ended.set()
        if self._watch is not None:
            self._watch.join()
            self._watch = None
        with self._lock:
            if self._held is not None:
                with contextlib.suppress(Exception):  # at once: a server notices a moment later that a client has left
                    self._held.execute("SELECT pg_advisory_unlock_all()")
            self._let_go()
            self.token = secrets.token_hex(8)

    def _hold(self) -> None:
        db = self._connect()
        db.autocommit = True
        number = int(self.token, 16)
        db.execute("SELECT pg_advisory_lock(%s)", (number - (1 << 64 if number >> 63 else 0),))
        self._held = db

    def _let_go(self) -> None:
        if self._held is not None:
            with contextlib.suppress(Exception):
                self._held.close()
            self._held = None

    def _keep(self) -> None:
        while not self._ended.wait(PULSE):
            with self._lock:
                try:
                    if self._held is None:
                        self._hold()
                    else:
                        self._held.execute("SELECT 1")
                except Exception:  # noqa: BLE001  the next beat tries again
                    self._let_go()
