"""A file on its way: bytes that are written once, their record beside them, and their digest as far as they are whole.

What is there is never written again: the digest may have passed it, and a source could otherwise show good bytes to the
digest and leave others in the file. The methods block and belong into threads; those that write may run at the same time.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from backends.fetching.ledger import Ledger
from backends.fetching.spans import Spans
from canonical.errors import BackendError, StorageFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ = 1024 * 1024


class Partial:
    """The open file; whoever has it has taken its turn."""

    def __init__(self, path: Path, file: int, *, reserve: int) -> None:
        self.path = path
        self.file = file
        self.ledger = Ledger(path)
        self.written = Spans()
        """On the disk or on their way to it; the ledger follows."""
        self._reserve = reserve
        self._hash = hashlib.sha256()
        self.hashed = 0

    def open(self) -> None:
        """Take up what an earlier try left."""
        with _worded():
            self.ledger.open(os.fstat(self.file).st_size)
        self.written = Spans(self.ledger.spans)

    def begin(self, size: int, etag: str) -> None:
        """Start anew, for a file of so many bytes."""
        with _worded():
            os.ftruncate(self.file, 0)
            self.ledger.begin(size, etag)
        self.written = Spans()
        self._hash, self.hashed = hashlib.sha256(), 0

    def tag(self, etag: str) -> None:
        """The source has said which file it is."""
        with _worded():
            self.ledger.tag(etag)

    def check_room(self) -> None:
        """Raises StorageFailed where what is missing does not fit."""
        with _worded():
            missing, free = self.ledger.size - self.written.total, free_bytes(self.file)
        if missing and missing + self._reserve > free:
            raise StorageFailed(too_little(missing, free - self._reserve))

    def write(self, start: int, pieces: Sequence[memoryview]) -> None:
        """Put bytes where they belong."""
        data = memoryview(b"".join(pieces))
        with _worded():
            while data:
                written = os.pwrite(self.file, data, start)
                start, data = start + written, data[written:]

    def settle(self, start: int, end: int) -> None:
        """Make what was written durable, then note it."""
        with _worded():
            (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self.file)
            self.ledger.note(start, end)
            if free_bytes(self.file) < self._reserve // 2:
                raise StorageFailed("the disk is nearly full: the download stops here, and goes on once there is room")

    def digest_on(self, end: int) -> None:
        """Take the bytes up to ``end``, which are whole, into the digest."""
        with _worded():
            while self.hashed < end:
                data = os.pread(self.file, min(_READ, end - self.hashed), self.hashed)
                if not data:
                    raise StorageFailed("the file of a download was cut by another program")
                self._hash.update(data)
                self.hashed += len(data)

    @property
    def digest(self) -> str:
        """Of all bytes so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def finish(self, digest: str) -> None:
        """Check the whole file. Raises BackendError where it is another one: nothing of it is kept."""
        if self.digest != digest:
            self.remove()
            raise BackendError(
                f"digest mismatch, file must be downloaded again: want {digest}, got {self.digest}",
                code="digest_mismatch",
            )
        with _worded():
            os.fsync(self.file)

    def remove(self) -> None:
        """Keep nothing."""
        with _worded():
            self.path.unlink(missing_ok=True)
            self.ledger.remove()

    def close(self) -> None:
        """Let go; what is there stays."""
        self.ledger.close()
        os.close(self.file)


class _worded:  # noqa: N801  reads like the function it is
    """What the disk says, in our words."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError):
            raise storage_failed(error) from error


def storage_failed(error: OSError) -> StorageFailed:
    """Without the path, which no reply may tell."""
    if error.errno in _FULL:
        return StorageFailed("the disk is full: the download stops here, and goes on once there is room")
    return StorageFailed(
        f"the download cannot be stored: {os.strerror(error.errno).lower() if error.errno else 'error'}"
    )


def free_bytes(file: int) -> int:
    """Of the disk that the file is on, for an ordinary user."""
    if not hasattr(os, "fstatvfs"):
        return 1 << 62  # it will say so itself
    found = os.fstatvfs(file)
    return found.f_bavail * found.f_frsize


def too_little(missing: int, free: int) -> str:
    """In words."""
    return f"not enough room: {missing:,} bytes are to be fetched, and {max(free, 0):,} are free"
