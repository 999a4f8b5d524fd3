"""Blobs that somebody is about to name in a manifest: no delete takes them, in whichever process it runs.

A claim is a file with their digests, locked by whoever claims; where nobody has the lock, that process is gone.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Self

from backends.store import locks
from backends.store.writing import failing
from canonical.digests import normal


class Claim:
    """Holds from ``with`` to its end. ``changing`` takes the store's lock."""

    def __init__(
        self, folder: Path, changing: Callable[[], AbstractContextManager[None]], digests: Iterable[str]
    ) -> None:
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
        self._changing = changing
        self._digests = {normal(digest) for digest in digests}
        self._file = -1

    def add(self, *digests: str) -> None:
        """Claim more."""
        with self._changing():
            self._write([normal(digest) for digest in digests])

    def __enter__(self) -> Self:
        # Under the lock: a delete has either ended, and what it took is seen to be missing, or it will see the claim.
        with self._changing():
            with failing():
                self._path.parent.mkdir(exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            locks.take(self._file)
            try:
                self._write(self._digests)
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, digests: Iterable[str]) -> None:
        with failing():
            os.write(self._file, "".join(f"{digest}\n" for digest in digests).encode())


def living(folder: Path) -> set[str]:
    """The digests of all claims in ``folder``; those of processes that are gone are removed. Under the store's lock."""
    found: set[str] = set()
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if locks.deserted(path):
            path.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                found.update(path.read_text().split())
    return found
