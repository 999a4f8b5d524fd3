"""Requests to a gateway in Ollama's dialect, one at a time; what goes wrong is one sentence."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT = 5.0
"""Seconds to reach the gateway. What it does then may take as long as it takes."""


class Failed(Exception):
    """The command cannot be done; the message says why, in words for its user."""


class Missing(Failed):
    """There is no such model."""


class Unreachable(Failed):
    """No gateway answers there."""


class Client:
    """One gateway. ``url`` has no path."""

    def __init__(self, url: str, key: str = "") -> None:
        """Nothing is asked yet. Raises Failed for a URL that is none."""
        self.url = url
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            self._secure = parts.scheme == "https"
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError as error:
            raise Failed(f"{url!r} is no address: {error}") from error
        if parts.scheme not in {"http", "https"} or not self._host:
            raise Failed(f"{url!r} is no address of a gateway")

    def version(self) -> str:
        """The release of Ollama's API that it speaks. Raises Unreachable."""
        found = self.ask("GET", "/api/version")
        return str(found.get("version", ""))

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One JSON answer, empty where there is none. Raises Failed."""
        with self._asked(method, path, _json(body)) as answer:
            data = answer.read()
        try:
            found = json.loads(data) if data.strip() else {}
        except ValueError as error:
            raise Failed(f"{self.url} does not answer as a gateway does") from error
        if not isinstance(found, dict):
            raise Failed(f"{self.url} does not answer as a gateway does")
        return found

    def exists(self, path: str) -> bool:
        """Whether ``HEAD`` finds it."""
        try:
            with self._asked("HEAD", path, None):
                return True
        except Missing:
            return False

    def lines(self, path: str, body: Any) -> Iterator[dict[str, Any]]:
        """The lines of a streamed answer, as they come, up to one that says it is whole. Closing it closes the connection. Raises Failed."""
        found: dict[str, Any] = {}
        with self._asked("POST", path, _json(body)) as answer:
            while line := answer.readline():
                found = json.loads(line)
                if "error" in found:
                    raise Failed(str(found["error"]))
                yield found
        if not found.get("done") and found.get("status") != "success":
            # A broken connection looks like an end here.
            raise Failed(f"{self.url} stopped answering: the answer has no end")

    def upload(self, path: str, file: Path) -> None:
        """Send a file. Raises Failed."""
        with (
            file.open("rb") as content,
            self._asked("POST", path, content, {"content-length": str(file.stat().st_size)}),
        ):
            pass

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=CONNECT)
        try:
            connection.connect()
            connection.sock.settimeout(None)
        except OSError as error:
            raise Unreachable(f"no gateway answers on {self.url}: {error.strerror or error}") from error
        try:
            connection.request(method, path, body, {**self._headers, **(headers or {})})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise (Missing if answer.status == 404 else Failed)(_reason(answer))
            yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Failed(f"{self.url} stopped answering: {error}") from error
        finally:
            connection.close()


def _json(body: Any) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _reason(answer: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(answer.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answers {answer.status} {answer.reason}"
