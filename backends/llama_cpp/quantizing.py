"""Weights in fewer bits: llama.cpp's own quantizer, which llama-cpp-python has, in a process of its own.

    python -m backends.llama_cpp.quantizing SOURCE TARGET Q4_K_M

It tells how far it is on standard error, in llama.cpp's words: ``[  12/ 291] blk.0.attn_k.weight ...``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from backends.llama_cpp.gguf import FILE_TYPES
from backends.workers.life import environment
from canonical.errors import BackendError, StorageFailed, Unsupported

_ALONE = threading.Lock()
"""One at a time: it takes all processors, and a copy's room on the disk."""
GLANCE = 0.5
"""Seconds between two looks whether anybody still waits."""
LONGEST = 64 * 1024
"""Bytes of a line."""
_FAR = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
_TYPES = {name: number for number, name in FILE_TYPES.items()}


def quantize(source: Path, target: Path, kind: str, tell: Callable[[float], None]) -> None:
    """Write ``source`` to ``target`` in ``kind``, in turn. ``tell`` takes shares of the whole; what it raises stops the work.

    Raises:
        Unsupported: the engine that can do it is not installed.
        BackendError, StorageFailed: it failed.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        raise Unsupported(
            "quantizing needs llama-cpp-python (pip install 'dragoman[llama-cpp-python]')", param="quantize"
        )
    command = [sys.executable, "-m", __name__, str(source), str(target), kind]
    tell(0.0)
    while not _ALONE.acquire(timeout=GLANCE):
        tell(0.0)
    try:
        _run(command, kind, tell)
    finally:
        _ALONE.release()


def _run(command: list[str], kind: str, tell: Callable[[float], None]) -> None:
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment(), **pipes) as work:  # type: ignore[call-overload]  # noqa: S603
        last, share = b"", 0.0
        try:
            for line in _said(work):
                last = line.strip() or last
                if far := _FAR.search(line):
                    share = int(far[1]) / max(int(far[2]), 1)
                tell(share)
            code = work.wait()
        finally:
            work.kill()
    if code:
        if b"write" in last or b"No space" in last:
            raise StorageFailed("the store has no room left for the quantized model")
        raise BackendError(f"the model could not be quantized to {kind}")


def _said(work: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """What it prints, line by line; nothing now and then, for whoever waits may leave while it is silent."""
    assert work.stderr is not None
    held = b""
    while True:
        if not select.select([work.stderr], [], [], GLANCE)[0]:
            yield b""
            continue
        data = os.read(work.stderr.fileno(), LONGEST)
        if not data:
            break
        *lines, held = (held + data).split(b"\n")
        yield from lines
        held = held[-LONGEST:]
    yield held


def _end_with_parent() -> None:
    """Whoever started this holds the other end of the pipe."""
    os.read(0, 1)  # no buffer of Python's: its lock would be held at the end
    os._exit(1)


def main() -> int:
    """In the process of its own."""
    import llama_cpp

    os.nice(10)  # answers go before
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source, target, kind = sys.argv[1:]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _TYPES[kind]
    params.nthread = 0
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))


if __name__ == "__main__":
    sys.exit(main())
