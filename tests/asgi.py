"""A client in memory: it speaks ASGI to an application as the server does, and can leave or stop reading at any point."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.accesslog import AccessLog
from gateway.background import Jobs as Background
from gateway.engine import Engine
from gateway.jobs import Jobs
from gateway.jobs.files import files_from
from gateway.sessions import Sessions
from gateway.settings import Config, Listener, ModelEntry
from gateway.store import Store
from gateway.web.app import listener_app
from gateway.web.cycle import DEPARTURE, Departure
from gateway.web.exchange import Gateway
from gateway.web.signed import Links
from tests.houses import Home, settled

LISTENER = Listener(port=11434)
Headers = Sequence[tuple[bytes, bytes]]


class Call:
    """One request on its way. ``sent`` is what the application has sent so far."""

    tells_departure = True
    """Whether the scope has our server's own word of a client that leaves, or only ASGI's."""

    def __init__(self, app: Any, method: str, path: str, body: bytes | Sequence[bytes], headers: Headers) -> None:
        pieces = [body] if isinstance(body, bytes) else list(body)
        self.sent: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.received = 0
        self._changed = asyncio.Event()
        self._gone = False
        self._news = asyncio.Event()
        self._arriving: deque[dict[str, Any]] = deque()
        for index, piece in enumerate(pieces):
            self.arrive(piece, more=index < len(pieces) - 1)
        given = dict(headers)
        own = [(b"host", b"127.0.0.1:11434")] if b"host" not in given else []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.partition("?")[0],
            "raw_path": path.partition("?")[0].encode(),
            "query_string": path.partition("?")[2].encode(),
            "root_path": "",
            "headers": [*own, *headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 11434),
            "state": {},
        }
        self._departure = Departure()
        if self.tells_departure:
            scope["extensions"] = {DEPARTURE: self._departure}
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    def arrive(self, piece: bytes, *, more: bool) -> None:
        self._arriving.append({"type": "http.request", "body": piece, "more_body": more})
        self._news.set()

    def leave(self) -> None:
        if not self.complete:
            self._departure.tell()
        self._gone = True
        self._news.set()

    async def _receive(self) -> dict[str, Any]:
        while True:
            if self._arriving:
                self.received += 1
                return self._arriving.popleft()
            if self._gone:
                return {"type": "http.disconnect"}
            self._news.clear()
            await self._news.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if self._gone:
            return
        assert not self.complete, "something was sent after the end"
        self.sent.append(message)
        if self.complete:
            self.leave()  # as the server has it: nothing more will be received
        self._changed.set()

    async def until(self, count: int) -> None:
        """Wait for so many messages."""
        while len(self.sent) < count:
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> Call:
        await self.task
        return self

    @property
    def complete(self) -> bool:
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    def json(self) -> Any:
        assert self.headers[b"content-type"].startswith(b"application/json"), self.headers
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """An NDJSON stream's objects."""
        return [json.loads(line) for line in self.body.decode().splitlines()]


class House:
    """A gateway in memory, with one listener."""

    def __init__(
        self,
        *,
        listener: Listener = LISTENER,
        config: Config | None = None,
        models: Sequence[ModelEntry] = (),
        data: Path | None = None,
        **homes: Home,
    ) -> None:
        """``data``: the folder of what it keeps; None: it keeps nothing."""
        config = config or Config()
        self.written = io.StringIO()
        self.log = AccessLog(self.written)
        self.engine = Engine(settled(config, models, **homes))
        self.background = self.jobs = self.store = sessions = None
        if data is not None:
            self.store = Store(config, data)
            self.background = Background(self.engine, self.store.responses, limit=config.limits.waiting, log=self.log)
            self.jobs = Jobs(self.engine, config, self.store.jobs, files_from(config.jobs, data))
            sessions = Sessions(self.store.sessions, system=config.sessions.system)
        self.gateway = Gateway(
            self.engine,
            body_limit=config.limits.body,
            access_log=self.log,
            background=self.background,
            jobs=self.jobs,
            store=self.store,
            sessions=sessions,
            links=None if data is None else Links(data),
        )
        self.app = listener_app(listener, config, self.gateway)

    def call(self, method: str, path: str, body: Any = b"", headers: Headers = ()) -> Call:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        return Call(self.app, method, path, body, headers)

    async def ask(self, method: str, path: str, body: Any = b"", headers: Headers = ()) -> Call:
        return await self.call(method, path, body, headers).end()

    def access(self) -> list[str]:
        """The lines of the access log, without their time."""
        self.log.flush()
        return [line.split(" ", 1)[1] for line in self.written.getvalue().splitlines()]

    def running(self) -> int:
        return sum(resident.running for resident in self.engine._pool.residents())

    async def close(self) -> None:
        # What failed before is not hidden by what it left behind.
        assert sys.exc_info()[0] is not None or not self.gateway.running, "something is still answered"
        await self.gateway.downloads.close()
        if self.jobs is not None:
            await self.jobs.close()
        await self.engine.close()
        if self.store is not None:
            await self.store.close()


def message_of(path: str, body: dict[str, Any]) -> str:
    """What an error body of the path's dialect says."""
    error = body["error"]
    if path.startswith("/api"):
        assert isinstance(error, str)
        return error
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def frames(path: str, call: Call) -> list[Any]:
    """A stream's objects, of either dialect."""
    if path.startswith("/api"):
        return call.lines()
    records = call.body.decode().removesuffix("\n\n").split("\n\n")
    assert all(record.startswith("data: ") for record in records)
    return [text if text == "[DONE]" else json.loads(text) for text in (record[6:] for record in records)]
