"""Starts the stand-in on a free loopback port, in a thread of its own, and stops it: politely, or as a crash would."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from tests.lmstudio import rest, sockets
from tests.lmstudio.studio import Row, Studio


class Running:
    """The server of one ``Studio``; its port stays the same over restarts."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._thread: threading.Thread | None = None
        self._call: Callable[..., object] = lambda *_: None
        self._serving: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Listen; returns when it does."""
        # Said to be TCP, so that what is written goes out at once: the loop looks at that.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.studio.port))
        self.studio.port = sock.getsockname()[1]
        sock.listen(128)  # from here on nobody is refused
        running = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(sock, running)), name="studio", daemon=True
        )
        self._thread.start()
        running.wait()

    def stop(self) -> None:
        """As a crash would: every connection breaks, and nothing stays in memory."""
        assert self._thread is not None
        assert self._serving is not None
        self._call(self._serving.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.studio.instances.clear()
        self.studio.running = 0

    async def _serve(self, sock: socket.socket, running: threading.Event) -> None:
        config = uvicorn.Config(
            self._app, lifespan="off", log_level="critical", ws="wsproto", http="httptools", loop="asyncio",
            access_log=False, interface="asgi3", proxy_headers=False, timeout_keep_alive=60,
        )  # fmt: skip
        server = uvicorn.Server(config)
        self._serving = serving = asyncio.ensure_future(server.serve([sock]))
        self._call = asyncio.get_running_loop().call_soon_threadsafe
        running.set()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        for listening in getattr(server, "servers", ()):
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        sock.close()

    def hang(self, seconds: float) -> None:
        """Answer nothing for a while, and accept nothing."""
        self._call(time.sleep, seconds)

    def restart(self) -> None:
        """The user quits LM Studio and opens it again."""
        self.stop()
        self.start()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await sockets.serve(self.studio, scope, receive, send)
        else:
            await rest.serve(self.studio, scope, receive, send)


@contextlib.contextmanager
def running(*rows: Row, **settings: Any) -> Iterator[tuple[Studio, Running]]:
    """A stand-in with ``rows`` on its disk (some, if none are given); ``settings`` are fields of ``Studio``."""
    studio = Studio(*rows)
    for name, value in settings.items():
        assert hasattr(studio, name), name
        setattr(studio, name, value)
    server = Running(studio)
    server.start()
    try:
        yield studio, server
    finally:
        server.stop()
