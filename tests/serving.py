"""Starts the real gateway as a process, on free ports, and stops it: what end-to-end tests stand on."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_ADDRESS = re.compile(r"on http://(\S+):(\d+)$")


class Served:
    """A running gateway: ``url`` of its first listener, and the process."""

    def __init__(self, process: subprocess.Popen[str], urls: list[str], log: Path) -> None:
        self.process = process
        self.urls = urls
        self.url = urls[0]
        self._log = log

    def log(self) -> str:
        """What it wrote on standard error so far."""
        return self._log.read_text()


@contextlib.contextmanager
def serving(
    config: str, *, listeners: int = 1, environ: dict[str, str] | None = None, env_file: bool = False
) -> Iterator[Served]:
    """A gateway on ``config``, whose listeners use port 0; waits until each has said its address.

    ``env_file``: it is no config.yaml but an env file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(config.replace("./models", str(ROOT / "models")))
        log = Path(folder) / "log"
        command = [
            sys.executable,
            "-m",
            "gateway",
            "serve",
            "--verbose",
            "--env-file" if env_file else "--config",
            str(path),
        ]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        with log.open("w") as output:
            process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=output, text=True, env=env, cwd=folder)
        tail = None
        try:
            urls, said = [], []
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line)
                if found := _ADDRESS.search(line.rstrip()):
                    urls.append(f"http://{found[1]}:{found[2]}")
                if len(urls) == listeners:
                    break
            assert len(urls) == listeners, f"the gateway did not start:\n{''.join(said)}"
            # The rest of what it says goes to the log file, so that its pipe never fills.
            tail = subprocess.Popen(["cat"], stdin=process.stderr, stdout=log.open("a"))
            yield Served(process, urls, log)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stderr is not None:
                process.stderr.close()
            if tail is not None:
                tail.wait()
