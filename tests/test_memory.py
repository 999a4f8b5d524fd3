"""How much memory there is and how much is free: amounts as people write them, the system's word, a container's, a GPU's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gateway.memory import MIB, Device, Machine, amount, reserve
from gateway.room import Budget

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("12GB", 12e9),
        ("8GiB", 8 * GIB),
        ("1.5 GB", 1.5e9),
        ("512mb", 512e6),
        ("100", 100),
        (123456, 123456),
        ("75%", 75e9),
        ("0%", 0),
        ("auto", 100e9 - 4 * GIB),
    ],
)
def test_amounts(text: str | int, count: float) -> None:
    assert amount(text, 100e9) == pytest.approx(count)


@pytest.mark.parametrize("text", ["much", "-1GB", "12XB", "101%", "x%", "", -1, "nan%", "1e400"])
def test_what_is_no_amount(text: str | int) -> None:
    with pytest.raises(ValueError, match="memory"):
        amount(text, 100e9)


def test_the_reserve_is_a_share_with_bounds() -> None:
    assert reserve(8 * GIB) == pytest.approx(0.8 * GIB)
    assert reserve(1 * GIB) == 256 * MIB
    assert reserve(400 * GIB) == 4 * GIB
    assert amount("auto", math.inf) == math.inf


def machine(root: Path, cgroup: str = "", files: dict[str, str] | None = None) -> Machine:
    """One of 16 GiB of which 8 are free. ``files`` lie under ``/sys/fs/cgroup``."""
    proc = root / "proc/self"
    proc.mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n")
    (proc / "cgroup").write_text(cgroup)
    for name, text in (files or {}).items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root, tuple)


def test_a_machine_without_limits_has_what_the_system_says(tmp_path: Path) -> None:
    found = machine(tmp_path)
    assert found.total == 16 * GIB
    assert found.free(False).ram == pytest.approx(8 * GIB - reserve(16 * GIB) / 4)
    assert found.free(True).vram == math.inf
    assert found.budget("auto", "auto", 0) == Budget(ram=16 * GIB - reserve(16 * GIB))


def test_a_container_has_what_it_is_given_and_pages_of_files_count_as_free(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        cgroup="0::/box\n",
        files={
            "box/memory.max": f"{4 * GIB}\n",
            "box/memory.current": f"{3 * GIB}\n",
            "box/memory.stat": f"anon 1\ninactive_file {GIB}\nactive_file {GIB}\n",
        },
    )
    assert found.total == 4 * GIB
    assert found.free(False).ram == pytest.approx(3 * GIB - reserve(4 * GIB) / 4)


def test_the_older_kind_of_group_and_one_that_is_seen_from_inside(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        cgroup="4:memory:/docker/abc\n1:cpu:/\n",
        files={
            "memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            "memory/memory.usage_in_bytes": f"{1 * GIB}\n",
            "memory/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert found.total == 2 * GIB
    assert found.free(False).ram == pytest.approx(1 * GIB - reserve(2 * GIB) / 4)


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", "junk"])
def test_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    files = {"memory.max": limit, "memory.current": "5"}
    assert machine(tmp_path, "0::/\n", files).total == 16 * GIB


def test_graphics_processors_are_asked_only_where_one_is_wanted(tmp_path: Path) -> None:
    asked: list[int] = []

    def devices() -> list[Device]:
        asked.append(1)
        return [Device(6 * GIB, 8 * GIB), Device(100 * MIB, 8 * GIB)]

    found = Machine(tmp_path, devices)
    assert found.free(False).vram == math.inf
    assert found.budget("auto", "auto", 3).models == 3
    assert not asked
    assert found.free(True).vram == pytest.approx(6 * GIB - 0.05 * 8 * GIB)
    assert found.budget("auto", "50%", 0).vram == 8 * GIB


def test_this_machine_can_be_measured() -> None:
    here = Machine()
    assert here.total > 100 * MIB
    assert here.free(False).ram > 0
