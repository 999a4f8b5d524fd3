"""The official JavaScript SDKs: one Node process that runs what is asked of it, many at once."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import threading
from concurrent.futures import Future
from typing import Any

from tests.matrix.rows import Answer, Body, Refused
from tests.serving import ROOT

_FOLDER = ROOT / "tests" / "js"
_PATIENCE = 60
_SPELLED = {"messages.count_tokens": "messages.countTokens"}


def available() -> bool:
    """Whether Node and the packages are here."""
    return shutil.which("node") is not None and (_FOLDER / "node_modules" / "openai").is_dir()


class Node:
    """The process; any thread may ask it."""

    def __init__(self, url: str) -> None:
        script = str(_FOLDER / "matrix.mjs")
        self._process = subprocess.Popen(
            ["node", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._waiting: dict[int, Future[Body]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def ask(self, question: Body) -> Body:
        """One line in, one line out."""
        assert self._process.stdin is not None
        future: Future[Body] = Future()
        with self._lock:
            id = next(self._ids)
            self._waiting[id] = future
            self._process.stdin.write(json.dumps({"id": id, **question}) + "\n")
            self._process.stdin.flush()
        return future.result(_PATIENCE)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self._waiting.pop(told["id"]).set_result(told)
        for future in self._waiting.values():
            future.set_exception(RuntimeError("the Node process ended"))


class JavaScript:
    """One dialect's SDK in the process."""

    def __init__(self, node: Node, dialect: str) -> None:
        self._node = node
        self._dialect = dialect

    def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
        """See ``Client``."""
        question = {"dialect": self._dialect, "method": _SPELLED.get(method, method), "body": body}
        told: Any = self._node.ask({**question, "stream": stream, "strict": strict})
        if refused := told.get("refused"):
            raise Refused(refused["status"], refused["message"], refused["kind"])
        if "failed" in told:
            raise RuntimeError(told["failed"])
        return Answer(told["items"], told["report"])

    def close(self) -> None:
        """The process goes on for others."""
