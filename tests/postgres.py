"""A real PostgreSQL server for tests: made, started and stopped here, on a socket in a folder of its own.

Its programs are Debian's (``apt-get install postgresql``) or whichever stand on the path. It refuses to run as root, so
there it runs as another user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

ROOM = 1024 * 1024 * 1024
USER, PASSWORD = "dragoman", "hunter2-the-secret"

_SETTINGS = """
listen_addresses = ''
shared_buffers = 16MB
max_connections = 60
wal_level = minimal
max_wal_senders = 0
min_wal_size = 32MB
max_wal_size = 64MB
autovacuum_naptime = 1h
log_min_messages = warning
"""


def programs() -> Path | None:
    """The folder of the newest server's programs; None: there is none on this machine."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if at := shutil.which("postgres"):
        found.append(Path(at).resolve().parent)
    whole = [folder for folder in found if (folder / "initdb").exists()]
    return max(whole, key=lambda folder: [int(part) for part in folder.parts if part.isdigit()], default=None)


class Server:
    """One server, with any number of databases."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder = folder
        self._bin = bin
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._used = ""
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            for name in ("postgres", "nobody"):
                with contextlib.suppress(KeyError):
                    user = pwd.getpwnam(name)
                    break
            shutil.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8",
                  "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"{_SETTINGS}unix_socket_directories = '{folder}'\n")
        self.start()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(command, check=False, cwd=self.folder, capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Back when it answers."""
        command = [str(self._bin / "postgres"), "-D", str(self.folder / "data")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._as)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.ask("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: what runs is broken off, SIGQUIT: as if it had crashed."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)

    def database(self) -> str:
        """The URL of a fresh, empty one."""
        self._count += 1
        name = f"t{self._count}"
        self.ask(f"CREATE DATABASE {name}")
        return self.url(name)

    def emptied(self) -> str:
        """The URL of one that was used before perhaps, and has nothing in its tables: much sooner made."""
        if not self._used:
            self._used = self.database()
            return self._used
        name = f"t{self._used.split('@/t')[1].split('?')[0]}"
        tables = [table for (table,) in self.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name)]
        if rest := ", ".join(table for table in tables if table != "dragoman_version"):
            self.ask(f"TRUNCATE {rest} RESTART IDENTITY", name)
        return self._used

    def url(self, name: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@/{name}?host={self.folder}"

    def ask(self, statement: str, name: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement answers, said by somebody else than the gateway."""
        with contextlib.closing(psycopg.connect(self.url(name), autocommit=True)) as db:
            found = db.execute(statement)
            return found.fetchall() if found.description else []


@contextlib.contextmanager
def server(*, in_memory: bool = True) -> Iterator[Server]:
    """A server for as long as the context lasts; FileNotFoundError where no PostgreSQL is installed."""
    bin = programs()
    if bin is None:
        raise FileNotFoundError("PostgreSQL is not installed (apt-get install postgresql)")
    # In memory where there is room: a database is 8 MB in 300 files, and each end of a server syncs them all. Not below
    # pytest's own folder, which only its user may enter; and a socket's path is short.
    roomy = in_memory and Path("/dev/shm").is_dir() and shutil.disk_usage("/dev/shm").free > ROOM
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/dev/shm" if roomy else "/tmp"))
    made = None
    try:
        made = Server(folder, bin)
        yield made
    finally:
        if made is not None:
            made.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of an empty database of a server of its own, on a disk, where a commit costs what it costs."""
    with server(in_memory=False) as one:
        yield one.database()
