"""How much memory models may take on this machine, and how much is free now: the system's, its control group's, its GPUs'.

``auto`` leaves a reserve to everything else. What cannot be measured is no limit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from gateway.room import Budget, Free

MIB = 1024 * 1024
RESERVE = 0.1
"""The share of the memory that ``auto`` leaves alone,"""
RESERVE_LEAST, RESERVE_MOST = 256 * MIB, 4096 * MIB
"""and its bounds. Of what is free a quarter of it stays free."""

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_NO_LIMIT = 2**60
"""Where control groups write no limit as a number, it is larger than this."""


class Device(Struct, frozen=True):
    """Memory of one graphics processor, in bytes."""

    free: int
    total: int


Devices = Callable[[], Sequence[Device]]


def amount(text: float | str, total: float) -> float:
    """Bytes: ``12GB``, ``8GiB``, a number, or a share of ``total`` (``75%``); ``auto`` is ``total`` without the reserve.

    Raises:
        ValueError: none of these.
    """
    if not isinstance(text, str):
        if text < 0:
            raise ValueError("an amount of memory is not negative")
        return float(text)
    word = text.strip()
    if word == "auto":
        return total - reserve(total) if total < math.inf else total
    if word.endswith("%"):
        share = _number(word[:-1], text)
        if share > 100:
            raise ValueError("there is no more memory than 100%")
        return total * share / 100
    found = _AMOUNT.fullmatch(word)
    if found is None:
        raise _wrong(text)
    base = 1024.0 if found[3] else 1000.0
    return float(found[1]) * math.pow(base, _POWERS[found[2].upper()])


def reserve(total: float) -> float:
    """What ``auto`` leaves to others, of ``total`` bytes."""
    return min(max(total * RESERVE, RESERVE_LEAST), RESERVE_MOST, total / 2)


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _wrong(whole) from None
    if not 0 <= value < math.inf:
        raise _wrong(whole)
    return value


def _wrong(text: str) -> ValueError:
    return ValueError(f"{text[:40]!r} is no amount of memory: 12GB, 8GiB, 75% or auto")


class Machine:
    """The memory of this machine. ``root`` is where ``proc`` and ``sys`` are; ``devices`` asks for graphics processors, slowly."""

    def __init__(self, root: Path = Path("/"), devices: Devices | None = None) -> None:
        self._meminfo = root / "proc/meminfo"
        self._groups = _groups(root)
        self._devices = devices or _devices

    def budget(self, ram: float | str, vram: float | str, models: int) -> Budget:
        """The configured amounts in bytes. ``auto`` for graphics memory is what is measured, without asking for it here."""
        graphics = amount(vram, math.inf)
        if isinstance(vram, str) and vram.strip().endswith("%"):
            total = float(sum(device.total for device in self._devices()))
            graphics = amount(vram, total) if total else math.inf
        return Budget(ram=amount(ram, self.total), vram=graphics, models=models or math.inf)

    @property
    def total(self) -> float:
        """Bytes that this process and its children may have at most."""
        installed = self._lines().get("MemTotal", 0) or _installed()
        return min(installed or math.inf, *(group.limit() for group in self._groups), math.inf)

    def free(self, graphics: bool) -> Free:
        """What can be taken now; pages of files count as free."""
        ram = self._lines().get("MemAvailable", math.inf)
        ram = min(ram, *(group.free() for group in self._groups), math.inf)
        margin = reserve(self.total) / 4 if ram < math.inf else 0.0
        vram = math.inf
        devices = self._devices() if graphics else ()
        if devices:
            vram = float(sum(max(device.free - min(device.total * 0.05, 512 * MIB), 0) for device in devices))
        return Free(ram=max(ram - margin, 0.0), vram=vram)

    def _lines(self) -> dict[str, float]:
        try:
            text = self._meminfo.read_text()
        except OSError:
            return {}
        found: dict[str, float] = {}
        for line in text.splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if name in {"MemTotal", "MemAvailable"} and words and words[0].isdigit():
                found[name] = int(words[0]) * 1024.0
        return found


class _Group:
    """One level of a control group: its limit, what it uses, and which of that are pages of files."""

    def __init__(self, folder: Path, names: tuple[str, str, tuple[str, ...]]) -> None:
        limit, used, self._pages = names
        self._limit, self._used, self._stat = folder / limit, folder / used, folder / "memory.stat"

    def limit(self) -> float:
        """Infinite where there is none."""
        value = _read_number(self._limit)
        return math.inf if value is None or value >= _NO_LIMIT else value

    def free(self) -> float:
        """What is left of the limit, counting pages of files as free."""
        limit = self.limit()
        used = _read_number(self._used)
        if limit == math.inf or used is None:
            return math.inf
        try:
            rows = dict(line.split(maxsplit=1) for line in self._stat.read_text().splitlines())
            pages = sum(float(rows.get(name, "0")) for name in self._pages)
        except (OSError, ValueError):
            pages = 0.0
        return limit - max(used - pages, 0.0)


_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))


def _groups(root: Path) -> list[_Group]:
    """The control groups that this process is in, each with all that are above it: the narrowest counts."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[_Group] = []
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        folder = top / path.lstrip("/")
        if ".." in folder.parts:
            folder = top
        names = _V1 if controllers else _V2
        # Inside a container the path is often the host's, and the top is the container's own group.
        while True:
            if (folder / names[1]).exists():
                found.append(_Group(folder, names))
            if folder == top:
                break
            folder = folder.parent
    return found


def _read_number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _installed() -> float:
    """The memory of a machine that has no ``/proc``."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 0.0


def _devices() -> list[Device]:
    """Graphics processors, as llama.cpp sees them; only asked where a model of it is about to use one."""
    try:
        import xllamacpp
    except ImportError:
        return []
    return [
        Device(int(row["memory_free"]), int(row["memory_total"]))
        for row in xllamacpp.get_device_info()
        if str(row["type"]).endswith("TYPE_GPU")
    ]
