"""``dragoman worker``: a process that listens nowhere, and works on the jobs that gateways with the same configuration take in.

It gets them from the database, or with ``jobs.queue`` over Redis; its models are its own, loaded with the same settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import structs

from backends.base import Equips
from canonical.errors import NotImplementedHere, StorageFailed
from gateway.config import ConfigError
from gateway.engine import Engine
from gateway.jobs.files import checked, files_from
from gateway.jobs.live import Live
from gateway.jobs.loop import Loop
from gateway.painting import painters
from gateway.settings import Config, Settled
from gateway.store import Store

if TYPE_CHECKING:
    from gateway.jobs.over_redis.workers import Painter

OVERTIME = 4.5
"""Seconds after the grace period at which the process ends, whatever still hangs."""


async def work(settled: Settled, *, jobs: int | None = None) -> None:
    """Work on jobs until a signal; then finish within the grace period what runs, or give it back, and end.

    ``jobs``: how many at once; None: as configured.

    Raises:
        ConfigError: nothing here paints, or pictures cannot be kept; in one line.
    """
    running = max(1, settled.config.jobs.running) if jobs is None else jobs
    config = structs.replace(settled.config, jobs=structs.replace(settled.config.jobs, running=running))
    settled = structs.replace(settled, config=config)
    ended = asyncio.Event()
    with _signals(ended, config.limits.grace):
        engine = Engine(settled)
        store = Store(config, settled.data_dir)
        files = files_from(config.jobs, settled.data_dir, settled.base)
        loop: Loop | Painter | None = None
        try:
            names = await _painters(engine, settled)
            await checked(files)
            if config.jobs.queue:
                from gateway.jobs.over_redis.workers import Painter

                loop = Painter(engine, files, config.jobs)
            else:
                with contextlib.suppress(StorageFailed):  # one that is away now comes back
                    await store.jobs.counts()
                loop = Loop(engine, store.jobs, files, Live(), config.jobs)
            loop.start()
            at_once = f"{running} at once" if running > 1 else "one after the other"
            print(f"dragoman paints {at_once}, for {_whose(config)}: {', '.join(names)}", file=sys.stderr, flush=True)
            await ended.wait()
        finally:
            if loop is not None:
                await loop.stop(config.limits.grace)
            await engine.close()
            await files.close()
            await store.close()


async def _painters(engine: Engine, settled: Settled) -> list[str]:
    """The models that paint. Raises ConfigError where there are none, or what they take is not installed."""
    rows = await painters(engine)
    if not rows:
        raise ConfigError(
            "no model here paints, so that there is nothing for a worker to do (a backend of type diffusers has some)"
        )
    for backend in settled.backends.values():
        if isinstance(backend, Equips):
            try:
                backend.check_equipped()
            except NotImplementedHere as error:
                raise ConfigError(error.message) from None
    return [row.id for row in rows]


def _whose(config: Config) -> str:
    """Where jobs come from, without secrets."""
    url = config.jobs.queue or config.database
    if not url:
        return "the gateway on this machine"
    split = urlsplit(url)
    host = split.hostname or "this machine"
    return f"{split.scheme.partition('+')[0]} at {host}{f':{split.port}' if split.port else ''}"


@contextlib.contextmanager
def _signals(ended: asyncio.Event, grace: float) -> Iterator[None]:
    """The first signal ends the work, the second one the process."""
    loop = asyncio.get_running_loop()
    signalled = False

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  signal's own signature
        nonlocal signalled
        if signalled:
            os._exit(128 + number)
        signalled = True
        loop.call_soon_threadsafe(ended.set)
        last = threading.Timer(grace + OVERTIME, os._exit, (0,))
        last.daemon = True
        last.start()

    old = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
