"""How far a load is: as the engine tells, or as the kernel does of the process that loads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from backends.base import Tell, tell_nobody
from canonical.progress import Progress

STATUS = "loading model"
GLANCE = 0.1
"""Seconds between two looks."""


class Gauge:
    """Of one load of ``size`` bytes. What it tells never goes back, and is whole only when the load is."""

    def __init__(self, path: str, size: int, tell: Tell) -> None:
        self._path, self._size, self._tell = path, size, tell
        self._seen = -1

    def far(self, part: float) -> None:
        """The engine says how much is loaded, 0 to 1."""
        self._show(int(self._size * min(max(part, 0.0), 1.0)))

    async def look(self, pid: int) -> None:
        """Look for oneself."""
        if self._tell is tell_nobody:
            return
        self._show(await asyncio.to_thread(mapped, pid, self._path))

    def _show(self, completed: int) -> None:
        completed = min(completed, self._size)
        if completed > self._seen:
            self._seen = completed
            self._tell(Progress(status=STATUS, total=self._size, completed=completed))


def mapped(pid: int, path: str, proc: Path = Path("/proc")) -> int:
    """Bytes of a file that a process has in memory: of its mapping, or where it reads the file, what it has read."""
    found, inside, here = 0, False, False
    try:
        for line in (proc / str(pid) / "smaps").read_text(errors="replace").splitlines():
            if line[:1] in "0123456789abcdef":  # the head of a mapping; its figures begin with capitals
                here = line.endswith(f" {path}")
                inside = inside or here
            elif here and line.startswith("Rss:"):
                found += int(line.split()[1]) * 1024
        if not inside:
            for line in (proc / str(pid) / "io").read_text().splitlines():
                if line.startswith("rchar:"):
                    found = int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass  # it is gone, or this system tells nothing
    return found
