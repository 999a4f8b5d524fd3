"""A worker process: one engine with one model, asked over pipes. ``python -m backends.llama_cpp.worker``.

It dies with the gateway: its input ends then, and Linux is asked to kill it besides. Native code may abort it at any
time; the gateway's side (``supervisor``) answers for that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

from backends.llama_cpp.engine import Engine
from backends.llama_cpp.frames import (
    CREDIT,
    LENGTH,
    Ask,
    Chunk,
    Done,
    FromWorker,
    Open,
    Opened,
    Stop,
    Taken,
    ToWorker,
    frame,
    read_to_worker,
)

_PR_SET_PDEATHSIG = 1


class _Running:
    """An ask, waiting or being answered."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.changed = threading.Condition()
        self.stopped = False
        self.under_way = 0

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify()

    def taken(self, count: int) -> None:
        with self.changed:
            self.under_way -= count
            self.changed.notify()


class _Desk:
    """Takes asks in, hands them to as many threads as the engine has slots, in the order of their coming."""

    def __init__(self, engine: Engine, slots: int, out: BinaryIO) -> None:
        self._engine = engine
        self._out = out
        self._writing = threading.Lock()
        self._asks: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        for _ in range(slots):
            threading.Thread(target=self._serve, daemon=True).start()

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

    def tell(self, message: FromWorker) -> None:
        data = frame(message)
        with self._writing:
            self._out.write(data)
            self._out.flush()

    def _serve(self) -> None:
        while True:
            running = self._asks.get()
            failure = ""
            try:
                if not running.stopped:
                    self._answer(running)
            except Exception as error:  # noqa: BLE001  # the ask fails, the process goes on
                failure = f"{type(error).__name__}: {error}"
            del self._running[running.ask.id]
            self.tell(Done(running.ask.id, failure))

    def _answer(self, running: _Running) -> None:
        ask = running.ask

        def emit(chunk: bytes) -> bool:
            if chunk and not running.stopped:
                self.tell(Chunk(ask.id, chunk))
                with running.changed:
                    running.under_way += 1
                    running.changed.wait_for(lambda: running.stopped or running.under_way < CREDIT)
            return running.stopped

        if ask.kind == "embed":
            emit(self._engine.embed(ask.body))
        elif ask.kind == "rerank":
            emit(self._engine.rerank(ask.body))
        else:
            self._engine.stream(ask.kind, ask.body, emit)


def _read(source: BinaryIO) -> ToWorker | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = source.read(length)
    return read_to_worker(data) if len(data) == length else None


def _load(message: Open) -> Engine:
    if message.engine == "xllamacpp":
        from backends.llama_cpp.xllamacpp import XLlamaCpp  # only one engine's library is loaded

        return XLlamaCpp(message.start)
    from backends.llama_cpp.llama_cpp_python import LlamaCppPython  # as above

    return LlamaCppPython(message.start)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # other systems: the end of input has to do
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Serve until the input ends."""
    _die_with_parent()
    # The gateway drains its streams first and then ends this process itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what native code prints must not become a message
    source = sys.stdin.buffer
    first = _read(source)
    if not isinstance(first, Open):
        return
    try:
        engine = _load(first)
    except Exception as error:  # noqa: BLE001  # told to the gateway, which knows whom to tell
        out.write(frame(Opened(f"{type(error).__name__}: {error}")))
        return
    desk = _Desk(engine, first.start.slots, out)
    desk.tell(Opened())
    while (message := _read(source)) is not None:
        desk.take(message)
    os._exit(0)  # native threads may be anywhere; nothing here is worth a wait


if __name__ == "__main__":
    main()
