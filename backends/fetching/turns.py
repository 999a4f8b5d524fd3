"""One process at a time fetches one file: a lock on the partial file, which the kernel lets go of with its holder."""

from __future__ import annotations

import os
from pathlib import Path

if os.name == "nt":
    import msvcrt

    def _try(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
else:
    import fcntl

    def _try(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def take(partial: Path) -> int | None:
    """The partial file, open and ours; None while another one has it. Raises OSError.

    Whoever had it before may have removed it, or given it its name: what was locked must still stand there.
    """
    while True:
        file = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            _try(file)
            if os.path.samestat(os.fstat(file), partial.stat()):
                return file
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError):
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        os.close(file)
