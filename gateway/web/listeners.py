"""One server, many sockets: the local address picks the application. Start, drain and end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from canonical.errors import GatewayError, InvalidRequest, RequestTimeout, TooLarge, UnsupportedMedia
from gateway.accesslog import AccessLog
from gateway.background import Jobs as Background
from gateway.config import ConfigError
from gateway.engine import Engine
from gateway.jobs import Jobs
from gateway.jobs.files import checked, files_from
from gateway.sessions import Sessions
from gateway.settings import ANY_ADDRESS, Config, Listener, Settled
from gateway.store import Store
from gateway.web import ollama_models
from gateway.web.app import listener_app, voices
from gateway.web.exchange import Gateway
from gateway.web.protocol import HttpLimits, strict_protocol
from gateway.web.signed import Links

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

BACKLOG = 4096
KEEP_ALIVE = 75
"""Seconds an idle client connection stays open."""
LAST_WORDS = 2.0
"""Seconds that cut-off answers have for their error frame."""
OVERTIME = 4.5
"""Seconds after the grace period at which the process ends, whatever still hangs."""

_REFUSALS: dict[int, type[GatewayError]] = {
    kind.status: kind for kind in (InvalidRequest, RequestTimeout, TooLarge, UnsupportedMedia)
}
"""What the server refuses before any route -> the error whose code says so."""


def bind(listener: Listener) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's; one line that names it.
    """
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((listener.host, listener.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {listener.port} on {listener.host} is already in use") from error
        raise ConfigError(f"cannot listen on {listener.host} port {listener.port}: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # characters that no host name has
        bound.close()
        raise ConfigError(f"cannot listen on {listener.host!r}: this is no host name") from error
    return bound


async def serve(settled: Settled) -> None:
    """Serve until a signal; then drain, within the grace period, and end.

    Raises:
        ConfigError: a listener cannot be had.
    """
    config = settled.config
    sockets: list[socket.socket] = []
    try:
        sockets.extend(map(bind, config.listeners))
        log = AccessLog(sys.stderr if config.access_log else None)
        engine = Engine(settled)
        store = Store(config, settled.data_dir)
        background = Background(engine, store.responses, limit=config.limits.waiting, log=log)
        files = files_from(config.jobs, settled.data_dir, settled.base)
        await checked(files)
        jobs = Jobs(engine, config, store.jobs, files)
        sessions = Sessions(store.sessions, system=config.sessions.system)
        gateway = Gateway(
            engine,
            body_limit=config.limits.body,
            access_log=log,
            background=background,
            jobs=jobs,
            store=store,
            sessions=sessions,
            links=Links(settled.data_dir),
        )
        app = _by_address(
            {
                bound.getsockname()[:2]: listener_app(listener, config, gateway)
                for bound, listener in zip(sockets, config.listeners, strict=True)
            }
        )
        server = Server(_server_config(app, config), gateway, grace=config.limits.grace)
        with server.capture_signals():  # from the first word on, until the models are closed
            for bound, listener in zip(sockets, config.listeners, strict=True):
                address = f"[{listener.host}]" if ":" in listener.host else listener.host
                print(
                    f"dragoman speaks {' and '.join(mounted.name for mounted in listener.mounts)} on http://{address}:{bound.getsockname()[1]}",
                    file=sys.stderr,
                    flush=True,
                )
            # What start-up made stays: without this every full collection walks it, for 30 ms. Requests leave no cycles behind.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 20)
            engine.begin()
            jobs.begin()
            try:
                await server.serve(sockets)
            finally:
                await gateway.downloads.close()
                await jobs.close()
                await gateway.engine.close()
                await store.close()
                log.flush()
    finally:
        for bound in sockets:
            bound.close()


def _server_config(app: ASGIApp, config: Config) -> uvicorn.Config:
    limits = config.limits
    voice_of = voices(config.listeners[0].mounts)

    def refuse(status: int, message: str, path: bytes) -> bytes:
        error = _REFUSALS.get(status, GatewayError)(message, status=status)
        return voice_of(path.decode("latin-1")).error_body(error)

    http_limits = HttpLimits(
        body=limits.body,
        upload=limits.upload or HttpLimits().upload,
        uploads=ollama_models.UPLOADS,
        head_time=limits.head_time,
        body_silence=limits.body_silence,
        unread=limits.unread,
    )
    return uvicorn.Config(
        app,
        loop="none",
        http=strict_protocol(http_limits, refuse),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # who is asked for and from where is never taken from forwarding headers
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(LAST_WORDS),
    )


def _by_address(apps: dict[tuple[str, int], ASGIApp]) -> ASGIApp:
    """The local address picks; one port may belong to several listeners on different addresses."""
    if len(apps) == 1:
        return next(iter(apps.values()))
    # A socket on every address accepts on addresses that are not its own name.
    by_port = {port: app for (host, port), app in apps.items() if host in ANY_ADDRESS}

    async def pick(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope["server"]
        assert server is not None
        host, port = server
        assert port is not None
        await (apps.get((host, port)) or by_port[port])(scope, receive, send)

    return pick


class Server(uvicorn.Server):
    """uvicorn's server with our end: drain first, exit status 0, a second signal ends at once."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, *, grace: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._grace = grace

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM while serving; uvicorn's own raises them again at the end, which spoils the status."""
        old = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # signal's own signature
        """First signal: drain. Second: end now."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True
        self._gateway.draining = True
        # Whatever hangs, a model's close or a thread: this is the end in any case.
        end = threading.Timer(self._grace + OVERTIME, os._exit, (0,))
        end.daemon = True
        end.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running answers finish within the grace period, refusing new ones; then give them their error frame.

        Pulls end at once: they may take hours, and the next start goes on from where they are.
        """
        await self._gateway.engine.library.close()
        running = self._gateway.running
        if running:
            await asyncio.wait(set(running), timeout=self._grace)
        if running:
            for task in set(running):
                task.cancel()
            await asyncio.wait(set(running), timeout=LAST_WORDS)
        await super().shutdown(sockets)
