"""What a worker may have of memory, and whether the kernel has killed somebody for want of it: it tells how often, not whom."""

from __future__ import annotations

import re
from pathlib import Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.ASCII | re.IGNORECASE)
_POWER = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def oom_kills(root: Path = Path("/")) -> int:
    """How many processes it has killed for that, here and in our control group; 0 where it does not tell."""
    files = [root / "proc/vmstat"]
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            files.append(root / "sys/fs/cgroup" / group.strip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(root / "sys/fs/cgroup/memory" / group.strip("/") / "memory.oom_control")
    words = (line.split() for file in files for line in _lines(file))
    return sum(int(word[1]) for word in words if len(word) == 2 and word[0] == "oom_kill" and word[1].isdigit())


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def memory_bytes(size: int | str | None) -> int:
    """``8GiB``, ``512M`` or a number as bytes; both kinds of units count in 1024s. Raises ValueError."""
    if size is None:
        return 0
    found = _SIZE.fullmatch(str(size).strip())
    if found is None:
        raise ValueError(f"memory_limit is a number of bytes, or one with KiB, MiB, GiB or TiB, not {str(size)[:32]!r}")
    return int(float(found[1]) * 1024 ** _POWER[found[2].upper()])
