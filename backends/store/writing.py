"""Files that are there whole or not at all: written beside their place, made durable, then renamed.

Whoever writes has a lock on the temporary file, so that what a killed process left can be told from what is being
written. A disk that is full leaves nothing behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from backends.store import locks
from canonical.errors import StorageFailed

TEMPORARY = ".tmp-"
"""How names of files begin that are being written: no name of a model, no blob."""
PIECE = 4 * 1024 * 1024
RESERVE = 256 * 1024 * 1024
"""Bytes of disk that are left to others."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Draft:
    """A file on its way. ``with`` removes what was not kept."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{TEMPORARY}{secrets.token_hex(8)}"
        self.size = 0
        self._sum = hashlib.sha256()
        with failing():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._made()

    def _made(self) -> int:
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            if locks.take(file) and os.fstat(file).st_nlink:
                return file
            os.close(file)  # somebody who sweeps looked between the two steps

    @property
    def digest(self) -> str:
        """Of what was written."""
        return f"sha256:{self._sum.hexdigest()}"

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Raises StorageFailed."""
        rest = memoryview(content)
        self._sum.update(rest)
        self.size += len(rest)
        with failing():
            while rest:
                rest = rest[os.write(self._file, rest) :]

    def keep(self, path: Path) -> None:
        """Give it its name, in place of what has that name. Raises StorageFailed."""
        with failing():
            os.fsync(self._file)
            self.path.replace(path)
            sync_folder(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self._file)


def write_file(path: Path, content: bytes) -> None:
    """Raises StorageFailed; then what was at ``path`` is still there."""
    with Draft(path.parent) as draft:
        draft.write(content)
        draft.keep(path)


def check_room(folder: Path, size: int) -> None:
    """Raises StorageFailed where so many bytes more leave too few to others."""
    with failing():
        found = os.statvfs(folder)
    if size + RESERVE > found.f_bavail * found.f_frsize:
        raise StorageFailed("the store has no room left")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def failing() -> Generator[None]:
    """What the disk refuses, in our words; no reply tells where files are."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFailed("the store has no room left") from error
        raise StorageFailed(f"the store cannot be written: {error.strerror}") from error
