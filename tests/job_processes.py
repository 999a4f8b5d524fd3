"""Gateways and workers as processes, and a client of theirs that waits by looking: what tests of kills stand on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.serving import ROOT, Served, serving

PATIENCE = 90.0
T = TypeVar("T")


def until(look: Callable[[], T], *, what: str = "") -> T:
    """What ``look`` finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(0.02)
    return found


class Worker:
    """A ``dragoman worker``."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._log = log

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """As if its machine were gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def end(self) -> int:
        """Have it end by itself."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextlib.contextmanager
def working(config: Path, *more: str) -> Iterator[Worker]:
    """A worker that has said that it works."""
    log = config.with_name(f"worker-{time.monotonic_ns()}.log")
    command = [sys.executable, "-m", "gateway", "worker", "--config", str(config), *more]
    with log.open("w") as output:
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stderr=output, text=True, env=environ, cwd=config.parent)
    worker = Worker(process, log)
    try:
        until(lambda: "dragoman paints" in worker.log() or process.poll() is not None, what="the worker's first words")
        assert process.poll() is None, worker.log()
        yield worker
    finally:
        if process.poll() is None:
            worker.kill()


class Client:
    """Of one gateway, by the dialect ``images``."""

    def __init__(self, served: Served) -> None:
        self.served = served

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.served.url + path, data, {"content-type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def submit(self, prompt: str, **more: Any) -> str:
        status, body = self.ask("POST", "/generate", {"prompt": prompt, **more})
        assert status == 200, body
        return json.loads(body)["job_id"]

    def job(self, id: str) -> dict[str, Any]:
        status, body = self.ask("GET", f"/status/{id}")
        assert status == 200, body
        return json.loads(body)

    def until(self, id: str, state: str) -> dict[str, Any]:
        return until(lambda: found if (found := self.job(id))["state"] == state else None, what=f"{id} {state}")

    def picture(self, id: str) -> bytes:
        status, body = self.ask("GET", f"/image/{id}")
        assert status == 200, body
        return body


@contextlib.contextmanager
def gateway(config: Path) -> Iterator[Client]:
    """A gateway, which may be killed meanwhile."""
    with serving(config.read_text()) as served:
        yield Client(served)


def kill(client: Client) -> None:
    client.served.process.send_signal(signal.SIGKILL)
    client.served.process.wait(30)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
