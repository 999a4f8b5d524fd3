"""Converted models: each a folder that is there whole or not at all, made once by whoever comes first.

``opus-mt-en-fr.int8.1f0c…`` is what the folder of that name became; another one as soon as its source changes. What is being
made has ``.new`` at its end, and belongs to whoever has the lock: one left behind by a process that died is swept away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from backends.store.locks import alone

KEY = 16
"""Digits of a model's key in the name of what it became: two models of one name are told apart, not all that there are."""


def place(cache: Path, name: str, kind: str, key: str) -> Path:
    """Where a model is when it is converted."""
    return cache / f"{name}.{kind}.{key[:KEY]}"


def made(where: Path, make: Callable[[Path], None], *, anew: bool = False) -> None:
    """See that ``where`` is there; ``make`` fills a new folder. ``anew``: also where there is one, which is no good.

    Raises:
        OSError: no room, or no right to write.
        Whatever ``make`` raises; nothing is left of it then.
    """
    if where.is_dir() and not anew:
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    stem = where.name.rpartition(".")[0]
    with alone(where.parent / f".{stem}.lock"):
        if where.is_dir() and not anew:
            return  # somebody else was first
        new = where.with_name(f"{where.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            make(new)
            for file in (*new.iterdir(), new):
                _settle(file)
            shutil.rmtree(where, ignore_errors=True)
            new.rename(where)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _settle(where.parent)
        for old in where.parent.glob(f"{stem}.*"):
            if old != where and old.name.rpartition(".")[0] == stem:
                shutil.rmtree(old, ignore_errors=True)  # what its source was before


def _settle(path: Path) -> None:
    """Have the disk keep what is written so far."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with (
            contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext()
        ):  # not every system does folders
            os.fsync(file)
    finally:
        os.close(file)
