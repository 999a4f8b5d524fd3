"""A pull in a process of its own, which dies by SIGKILL at the nth thing that it does to a file. For test_pull_kills.

Everything that changes a file, and each step of the digest, counts as one thing. What it wrote stands in a log; ``at`` 0:
it lives, and says there how many things it did.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backends.fetching.fetching import Fetching
from backends.fetching.hosts import Hosts
from backends.fetching.partial import Partial
from backends.fetching.patience import Pace
from backends.store import Store

CHANGES = ("pwrite", "write", "fdatasync", "fsync", "rename", "replace", "unlink", "ftruncate", "remove", "link")


def main(folder: str, hosts: list[str], name: str, at: int, file: str) -> None:
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count = itertools.count(1)
    write = os.write

    def due() -> None:
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(original: Callable[..., Any], *, noted: bool) -> Callable[..., Any]:
        def done(*arguments: Any, **more: Any) -> Any:
            due()
            found = original(*arguments, **more)
            if noted:
                write(log, b"%d %d\n" % (arguments[2], arguments[2] + found))
            return found

        return done

    for change in CHANGES:
        setattr(os, change, dying(getattr(os, change), noted=change == "pwrite"))
    Partial.digest_on = dying(Partial.digest_on, noted=False)  # type: ignore[method-assign]

    async def run() -> None:
        pace = Pace(connections=2, part=256 * 1024, block=64 * 1024, piece=32 * 1024, reserve=0)
        fetching = Fetching(Store(Path(folder)), pace=pace, hosts=Hosts(hosts))
        async for _ in fetching.pull(name, insecure=True):
            pass

    asyncio.run(run())
    write(log, b"done %d\n" % next(count))
