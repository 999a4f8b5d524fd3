"""A worker process that does what native code may do: hang, spin, eat memory, die, print. What it loads says how it loads."""

from __future__ import annotations

import json
import os
import sys
import threading

from backends.workers import desk
from backends.workers.desk import Emit, Far, Serve


def load(start: bytes, far: Far) -> Serve:
    far(0.5)
    print(f"loading {start.decode()}", file=sys.stderr, flush=True)
    if start == b"dies":
        os.abort()
    if start == b"fails":
        raise ValueError("this is no model")
    if start == b"takes for ever":
        threading.Event().wait()
    return serve


def serve(kind: str, body: bytes, emit: Emit) -> None:
    if kind == "count":
        for number in range(int(body)):
            if emit(b"%d " % number):
                return
    elif kind == "hang":
        emit(b"begun")
        threading.Event().wait()
    elif kind == "spin":
        emit(b"begun")
        while True:
            pass
    elif kind == "grow":
        held = []
        while True:
            held.append(bytearray(16 * 1024 * 1024))
    elif kind == "print":
        os.write(1, b"\0\0\0\1x")
        print("a client wrote this", file=sys.stderr, flush=True)
        emit(b"printed")
    elif kind == "environment":
        emit(json.dumps(sorted(os.environ)).encode())
    elif kind == "die":
        emit(b"begun")
        os.abort()


if __name__ == "__main__":
    desk.main(load)
