"""Where the files of jobs are: pictures, and the images that they begin with. Here in a folder, in ``s3`` in a bucket.

Names are flat and nobody can guess them. What ``put`` has returned from outlives a loss of power; what it has not is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from canonical.errors import NotFound, StorageFailed
from gateway.config import ConfigError
from gateway.settings import Jobs as Settings
from gateway.unbroken import unbroken

FOLDER = "pictures"
"""Under ``data_dir``, where the configuration names no other place."""
ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif"}
TYPES = {ending: kind for kind, ending in ENDINGS.items()}
INPUT = ".in"
PART = ".part"
"""Ends the names of files that are being written."""
_NAME = re.compile(r"[A-Za-z0-9_-]{32}\.(?:png|jpg|webp|gif|in)")
_PARTIAL = re.compile(r"[A-Za-z0-9_-]{32}\.part")

T = TypeVar("T")


class Files(Protocol):
    """A place for files."""

    async def check(self) -> None:
        """See whether it can be used. Raises ValueError where it never will, in one line."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep a file, durably. Raises StorageFailed, and nothing is kept."""

    async def get(self, name: str) -> bytes:
        """A file. Raises NotFound, StorageFailed."""

    async def delete(self, names: Sequence[str]) -> None:
        """Let go of files; one that is not there is none the less gone. Raises StorageFailed."""

    def names(self) -> AsyncIterator[tuple[str, float]]:
        """Our files, each with the time at which it was written, in seconds since 1970. Raises StorageFailed."""

    async def close(self) -> None:
        """Let go of what is held open."""


def new_name(media_type: str = "", *, input: bool = False) -> str:
    """A name that nobody had and nobody can guess."""
    return secrets.token_urlsafe(24) + (INPUT if input else ENDINGS.get(media_type, ".png"))


def is_name(name: str) -> bool:
    """Whether this can be the name of one of our files: none that can is a path."""
    return _NAME.fullmatch(name) is not None


def type_of(name: str) -> str:
    """The media type of a picture, which its name tells."""
    return TYPES.get(Path(name).suffix, "image/png")


def files_from(settings: Settings, data: Path, base: Path | None = None) -> Files:
    """The place that the configuration names; ``base``: the folder that its paths count from. Nothing is opened yet."""
    if settings.results.startswith("s3://"):
        from gateway.jobs.s3 import S3Files

        return S3Files(settings.results)
    return Folder((base or Path()) / settings.results if settings.results else data / FOLDER)


async def checked(files: Files) -> None:
    """See whether pictures can be kept. Raises ConfigError where they never will be."""
    try:
        await files.check()
    except ValueError as error:
        raise ConfigError(f"{error} - at `$.jobs.results`") from None


class Folder:
    """Files in one folder, which others may share; what is not ours in it is left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def check(self) -> None:
        """It is made when it is needed."""

    async def put(self, name: str, data: bytes) -> None:
        """Written aside, and given its name when all of it is on the disk."""
        await unbroken(asyncio.to_thread(self._put, name, data))

    async def get(self, name: str) -> bytes:
        """Read beside the loop."""
        if not is_name(name):
            raise NotFound("there is no such picture")
        try:
            return await asyncio.to_thread((self._folder / name).read_bytes)
        except FileNotFoundError as error:
            raise NotFound("there is no such picture") from error
        except OSError as error:
            raise StorageFailed(f"the picture cannot be read: {error.strerror}") from error

    async def delete(self, names: Sequence[str]) -> None:
        """Those that are ours by their names."""

        def work() -> None:
            for name in filter(_is_ours, names):
                try:
                    (self._folder / name).unlink(missing_ok=True)
                except OSError as error:
                    raise StorageFailed(f"a picture cannot be deleted: {error.strerror}") from error

        await unbroken(asyncio.to_thread(work))

    async def names(self) -> AsyncIterator[tuple[str, float]]:
        """What was left half written is told too."""

        def work() -> list[tuple[str, float]]:
            found: list[tuple[str, float]] = []
            with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as entries:
                for entry in entries:
                    if _is_ours(entry.name) and entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            found.append((entry.name, entry.stat(follow_symlinks=False).st_mtime))
            return found

        try:
            for one in await asyncio.to_thread(work):
                yield one
        except OSError as error:
            raise StorageFailed(f"pictures cannot be listed: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing is open."""

    def _put(self, name: str, data: bytes) -> None:
        assert is_name(name)
        part = self._folder / f"{secrets.token_urlsafe(24)}{PART}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with open(part, "xb", opener=_secret) as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self._folder / name)
                self._sync()
            except OSError:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
                    (self._folder / name).unlink(missing_ok=True)
                raise
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            words = "the disk is full" if full else error.strerror
            raise StorageFailed(f"the picture cannot be kept: {words}") from error

    def _sync(self) -> None:
        """The names too: elsewhere than on POSIX systems a folder cannot be synced, nor need it be."""
        if os.name == "posix":
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _secret(path: str, flags: int) -> int:
    """What is nobody else's to read on this machine."""
    return os.open(path, flags, 0o600)


def _is_ours(name: str) -> bool:
    return is_name(name) or _PARTIAL.fullmatch(name) is not None
