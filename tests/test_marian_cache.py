"""Converted models are there whole or not at all: full disks, kills at any moment, two at once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backends.marian import cache

ROOT = Path(__file__).resolve().parent.parent


def fill(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"whole")


@pytest.fixture
def where(tmp_path):
    return cache.place(tmp_path / "cache", "opus-mt-en-fr", "int8", "0123456789abcdef0000")


def test_it_is_made_once(where):
    made = []
    for _ in range(2):
        cache.made(where, lambda folder: (made.append(folder), fill(folder)))
    assert len(made) == 1
    assert [path.name for path in where.iterdir()] == ["model.bin"]
    cache.made(where, lambda folder: (folder / "other.bin").touch(), anew=True)
    assert [path.name for path in where.iterdir()] == ["other.bin"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("no model"), KeyboardInterrupt()]
)
def test_what_fails_leaves_nothing(where, error):
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        cache.made(where, fail)
    assert [path.name for path in where.parent.iterdir() if path.is_dir()] == []
    cache.made(where, fill)
    assert (where / "model.bin").read_bytes() == b"whole"


def test_a_full_disk_while_it_is_settled_leaves_nothing(where, monkeypatch):
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        cache.made(where, fill)
    assert not where.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from backends.marian import cache
at, where = int(sys.argv[1]), Path(sys.argv[2])
count = 0
def due(original):
    def done(*arguments, **more):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **more)
    return done
for name in ("mkdir", "fsync", "rename", "rmdir", "unlink"):
    setattr(os, name, due(getattr(os, name)))
def fill(folder):
    for number in range(2):
        with open(folder / f"{number}.bin", "wb") as file:
            file.write(b"half"); file.flush(); os.fsync(file.fileno())
            file.write(b"whole")
cache.made(where, fill)
"""


def test_a_kill_at_any_moment_leaves_nothing_that_looks_whole(where):
    for at in range(1, 30):
        done = subprocess.run([sys.executable, "-c", KILLED, str(at), str(where)], cwd=ROOT, check=False, timeout=60)
        if where.is_dir():
            assert sorted(path.read_bytes() for path in where.iterdir()) == [b"halfwhole"] * 2
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    else:
        pytest.fail("it never came to its end")
    assert [path.name for path in where.parent.iterdir() if path.is_dir()] == [where.name]


def test_two_at_once_make_one(where):
    begun, go, made = threading.Event(), threading.Event(), []

    def slowly(folder: Path) -> None:
        begun.set()
        go.wait(10)
        made.append("first")
        fill(folder)

    first = threading.Thread(target=cache.made, args=(where, slowly))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=cache.made, args=(where, lambda folder: made.append("second")))
    second.start()
    go.set()
    first.join(10)
    second.join(10)
    assert made == ["first"]


def test_what_its_source_was_before_goes_and_nothing_else(where):
    other_kind = cache.place(where.parent, "opus-mt-en-fr", "float32", "1" * 64)
    longer_name = cache.place(where.parent, "opus-mt-en-fr.v2", "int8", "1" * 64)
    old = cache.place(where.parent, "opus-mt-en-fr", "int8", "2" * 64)
    for folder in (other_kind, longer_name, old, where):
        cache.made(folder, fill)
    assert not old.exists()
    assert all(folder.is_dir() for folder in (other_kind, longer_name, where))
