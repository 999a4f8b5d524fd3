r"""What of a partial file is safely on the disk, written down beside it so that it outlives any end of the process.

    {"size":2019377376,"etag":""}
    {"size":2019377376,"etag":"\"a1\""}
    0 8388608
    67108864 75497472

Lines are only ever appended, each after the bytes it tells of are on the disk; half a line at the end is none. The
methods that write block.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from backends.fetching.spans import Spans

_LINE = re.compile(rb"([0-9]{1,16}) ([0-9]{1,16})")
_LONGEST = 16 * 1024 * 1024
"""Bytes of a ledger; there would be half a million lines in it."""


class _Head(Struct):
    size: int
    etag: str = ""


class Ledger:
    """The ledger of the partial file at ``partial``."""

    def __init__(self, partial: Path) -> None:
        self.size = 0
        """Of the whole file; 0: not begun."""
        self.etag = ""
        self.spans = Spans()
        self._path = ledger_of(partial)
        self._lock = threading.Lock()
        self._file = -1

    def open(self, there: int) -> None:
        """Go on with what an earlier try wrote; ``there`` is how many bytes the partial file has. Raises OSError."""
        if self.read(there):
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            os.write(self._file, b"\n")  # after half a line, the next one must not be its rest

    def read(self, there: int) -> bool:
        """Only look, as those may whose turn it is not; False: there is none. Raises OSError."""
        try:
            if self._path.stat().st_size > _LONGEST:
                return False
            head, *lines = self._path.read_bytes().split(b"\n")[:-1] or [b""]
            found = msgspec.json.decode(head, type=_Head)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return False
        self.size = found.size
        for line in [head, *lines]:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                self.etag = msgspec.json.decode(line, type=_Head).etag
            if matched := _LINE.fullmatch(line):
                start, end = int(matched[1]), int(matched[2])
                self.spans.add(start, min(end, found.size, there))
        return True

    def begin(self, size: int, etag: str) -> None:
        """Start anew. Raises OSError."""
        self.close()
        self.size, self.etag, self.spans = size, etag, Spans()
        new = self._path.with_name(self._path.name + ".new")
        new.write_bytes(msgspec.json.encode(_Head(size, etag)) + b"\n")
        new.replace(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def tag(self, etag: str) -> None:
        """The source has said which file it is. Raises OSError."""
        self.etag = etag
        with self._lock:
            os.write(self._file, msgspec.json.encode(_Head(self.size, etag)) + b"\n")

    def note(self, start: int, end: int) -> None:
        """These bytes are on the disk. From any thread. Raises OSError."""
        with self._lock:
            os.write(self._file, b"%d %d\n" % (start, end))

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """The partial file has become whole, or is gone."""
        self.close()
        self._path.unlink(missing_ok=True)


def ledger_of(partial: Path) -> Path:
    """Where the ledger of a partial file is."""
    return partial.with_name(partial.name + ".ledger")
