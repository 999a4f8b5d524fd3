"""The worker's side of the pipes: loads one engine and hands it what is asked. ``main`` is all that a worker process runs.

It dies with the gateway: its input ends then, and Linux is asked to kill it besides. Native code may abort it at any
time; the gateway's side (``worker``) answers for that.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from backends.workers.frames import (
    CREDIT,
    LENGTH,
    Ask,
    Chunk,
    Done,
    FromWorker,
    Loading,
    Open,
    Opened,
    Ping,
    Pulse,
    Stop,
    Taken,
    ToWorker,
    frame,
    read_to_worker,
)
from backends.workers.parent import die_with_parent

Emit = Callable[[bytes], bool]
"""Takes a chunk, or nothing as a sign of life; True means stop."""
Serve = Callable[[str, bytes, Emit], None]
"""Answers an ask: its kind, its body. Runs in as many threads at once as there are slots."""
Far = Callable[[float], bool]
"""Takes how much is loaded, 0 to 1; always True: a load is stopped by the end of the process."""
Load = Callable[[bytes, Far], Serve]

_SACRIFICE = "500"
"""Added to what the kernel looks at when memory runs out: a worker goes before the gateway."""


class _Running:
    """An ask, waiting or being answered."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.changed = threading.Condition()
        self.stopped = self.computing = self.stepping = False
        self.under_way = 0

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify()

    def taken(self, count: int) -> None:
        with self.changed:
            self.under_way -= count
            self.changed.notify()

    def told(self) -> None:
        """A chunk has gone out: wait while too many are under way."""
        with self.changed:
            self.under_way += 1
            self.computing = False
            self.changed.wait_for(lambda: self.stopped or self.under_way < CREDIT)
            self.computing = True


class _Desk:
    """Takes asks in, hands them to as many threads as the engine has slots, in the order of their coming."""

    def __init__(self, serve: Serve, slots: int, tell: Callable[[FromWorker], None]) -> None:
        self._serve = serve
        self._tell = tell
        self._asks: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._steps = 0
        for _ in range(slots):
            threading.Thread(target=self._work, daemon=True).start()

    def take(self, message: ToWorker) -> None:
        match message:
            case Ask(id):
                running = self._running[id] = _Running(message)
                self._asks.put(running)
            case Stop(id):
                if id in self._running:
                    self._running[id].stop()
            case Taken(id, count):
                if id in self._running:
                    self._running[id].taken(count)
            case Ping():
                self._tell(self._pulse())

    def _pulse(self) -> Pulse:
        now = [running for running in list(self._running.values()) if running.computing]
        return Pulse(self._steps, len(now), sum(running.stepping for running in now), time.process_time())

    def _work(self) -> None:
        while True:
            running = self._asks.get()
            failure = ""
            try:
                if not running.stopped:
                    self._answer(running)
            except Exception as error:  # noqa: BLE001  # the ask fails, the process goes on
                failure = f"{type(error).__name__}: {error}"
            del self._running[running.ask.id]
            self._tell(Done(running.ask.id, failure))

    def _answer(self, running: _Running) -> None:
        def emit(chunk: bytes) -> bool:
            self._steps += 1  # two at once may count as one: it only has to change
            running.stepping = True
            if chunk and not running.stopped:
                self._tell(Chunk(running.ask.id, chunk))
                running.told()
            return running.stopped

        running.computing = True
        self._serve(running.ask.kind, running.ask.body, emit)


def _read(source: BinaryIO) -> ToWorker | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = source.read(length)
    return read_to_worker(data) if len(data) == length else None


def _settle_in() -> None:
    """Be the first to go, with the parent or before it, and leave nothing behind that a client wrote."""
    die_with_parent(signal.SIGKILL)  # on other systems the end of input has to do
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_SACRIFICE)
    _limit("RLIMIT_CORE", 0)
    # The gateway drains its streams first and then ends this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _limit(name: str, value: int) -> None:
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):  # not everywhere
        import resource  # of Unix alone

        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def main(load: Load) -> None:
    """Serve until the input ends."""
    _settle_in()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what native code prints must not become a message
    source, writing = sys.stdin.buffer, threading.Lock()

    def tell(message: FromWorker) -> None:
        data = frame(message)
        with writing:
            out.write(data)

    def far(part: float) -> bool:
        tell(Loading(part))
        return True

    first = _read(source)
    if not isinstance(first, Open) or (first.parent and os.getppid() != first.parent):
        return
    if first.memory:
        _limit("RLIMIT_DATA", first.memory)
    try:
        serve = load(first.start, far)
    except Exception as error:  # noqa: BLE001  # told to the gateway, which knows whom to tell
        tell(Opened(f"{type(error).__name__}: {error}"))
        return
    desk = _Desk(serve, first.slots, tell)
    # What was printed so far tells of a model; what comes now may tell what a client wrote.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    tell(Opened())
    while (message := _read(source)) is not None:
        desk.take(message)
    os._exit(0)  # native threads may be anywhere; nothing here is worth a wait
