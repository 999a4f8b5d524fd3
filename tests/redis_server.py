"""A real Redis server for tests, on a free port, which keeps nothing on disk: what kills it kills all that it has.

It is Debian's (``apt-get install redis-server``) or whichever stands on the path.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import own_port

PASSWORD = "hunter2-of-redis"


class RedisServer:
    """Stopped and started at will; it keeps its port and nothing else."""

    def __init__(self, folder: Path, program: str) -> None:
        self._log = folder / "redis.log"
        self._folder = folder
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port = own_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Back when it answers."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", PASSWORD, "--dir", str(self._folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
                if line.makefile("rb").read(len("+OK\r\n+PONG")).endswith(b"PONG"):
                    return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """As if its machine were gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server for as long as the context lasts; FileNotFoundError where no Redis is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise FileNotFoundError("Redis is not installed (apt-get install redis-server)")
    made = RedisServer(folder, program)
    try:
        yield made
    finally:
        made.kill()
