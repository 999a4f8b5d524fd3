"""A real S3 server for tests: rclone's, on a free port, its buckets folders below one of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import own_port

KEY, SECRET = "dragoman-tests", "hunter2-the-secret"


class S3Server:
    """Stopped and started at will; it keeps its port and its buckets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = own_port()
        (folder / "pictures").mkdir(parents=True)
        self.start()

    def url(self, path: str = "pictures/some/where", *, key: str = KEY, secret: str = SECRET) -> str:
        endpoint = f"http://127.0.0.1:{self.port}"
        return f"s3://{path}?endpoint={endpoint}&region=us-east-1&access_key_id={key}&secret_access_key={secret}"

    def kept(self) -> list[str]:
        """The names in all buckets."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def start(self) -> None:
        """Back when it answers."""
        program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or "rclone"
        command = [program, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null"]
        command += ["--auth-key", f"{KEY},{SECRET}", str(self.folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """As if its machine were gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server for as long as the context lasts."""
    made = S3Server(folder)
    try:
        yield made
    finally:
        made.stop()
