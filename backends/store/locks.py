"""Locks between processes that share a folder. They end with their process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Generator[None]:
    """Wait until nobody else has the lock at ``path``, a file that stays. Raises OSError where it cannot be made."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def take(file: int) -> bool:
    """Lock an open file until it is closed; False where somebody else has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def held(path: Path) -> int | None:
    """The file at ``path``, made where it is not, open and locked; None where another one has it. Raises OSError.

    Whoever had it before may have removed it, or given it another name: what was locked must still stand there.
    """
    while True:
        # A link would have us write where it leads to.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            if not take(file):
                os.close(file)
                return None
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def deserted(path: Path) -> bool:
    """Whether nobody has a lock on the file at ``path``: who made it is gone. Also where there is no such file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # nor does a pipe keep us waiting
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return take(file)
    finally:
        os.close(file)
