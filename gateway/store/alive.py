"""Which gateways still run, as far as their files tell: two of them may share a folder.

Each holds a lock on a file that bears its token, for as long as its process lives; the system lets go of it however the
process ends. The lock is SQLite's own, which works wherever the store does.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

FOLDER = "running"


class Files:
    """One gateway's sign of life. All verbs may block for a moment."""

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

    def sees(self, token: str, db: Connection | None = None) -> bool:  # noqa: ARG002  the other way needs it
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
