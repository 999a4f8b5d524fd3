"""Links to pictures that open without a key, as OpenAI's do: to one picture, and for an hour.

    /v1/images/files/<name>?expires=<seconds since 1970>&format=webp&quality=80&signature=<...>

The signature is over all the rest. Its secret is kept in a file, so that links outlive a restart; gateways that are to open
each other's share that file.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct

from canonical.errors import Forbidden, StorageFailed
from gateway.settings import Mounted

FILE = "links.key"
LIFE = 3600
"""Seconds that a link opens."""
FILES = "/images/files/"
SIZE = 32
"""Bytes of the secret."""
_FIELDS = 8


class Opened(Struct, frozen=True):
    """What a link opens."""

    name: str
    form: str
    """``webp``, ``jpeg``, ``png``; empty: as it is kept."""
    quality: int | None
    seconds: int
    """That it goes on doing so."""


class Links:
    """Signs links, and says which are good."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """``folder``: where the secret is kept, made by the first link."""
        self._path = folder / FILE
        self._clock = clock
        self._secret = b""

    async def link(self, base: str, name: str, form: str = "", quality: int | None = None) -> str:
        """A link below ``base``, the URL that the routes of pictures begin with. Raises StorageFailed."""
        expires = int(self._clock()) + LIFE
        fields = {"expires": str(expires)}
        if form:
            fields["format"] = form
        if quality is not None:
            fields["quality"] = str(quality)
        query = urlencode({**fields, "signature": _signature(await self._key(), name, fields)})
        return f"{base}{FILES}{name}?{query}"

    async def opened(self, name: str, query: bytes) -> Opened | None:
        """What a link to ``name`` opens; None: it has no signature.

        Raises:
            Forbidden: it is too old, or nobody here signed it.
        """
        try:
            pairs = parse_qsl(
                query.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_FIELDS
            )
        except ValueError:
            return None
        fields = dict(pairs)
        signature = fields.pop("signature", "")
        if not signature:
            return None
        expected = _signature(await self._key(), name, fields)
        if len(pairs) != len(fields) + 1 or not hmac.compare_digest(expected.encode(), signature.encode()):
            raise Forbidden("this link is not whole, or was not made here")
        left = int(fields["expires"]) - int(self._clock())
        if left <= 0:
            raise Forbidden("this link has expired: ask for the picture again")
        quality = fields.get("quality")
        return Opened(name, fields.get("format", ""), None if quality is None else int(quality), left)

    async def _key(self) -> bytes:
        if not self._secret:
            try:
                self._secret = await asyncio.to_thread(_kept, self._path)
            except OSError as error:
                raise StorageFailed(f"no link can be made: {error.strerror}") from error
        return self._secret


def places(mounts: Sequence[Mounted]) -> tuple[str, ...]:
    """Where on a listener the files are: what stands before their names."""
    return tuple(
        mounted.prefix + base + FILES for mounted in mounts if mounted.name == "openai" for base in ("/v1", "")
    )


def _signature(key: bytes, name: str, fields: dict[str, str]) -> str:
    told = "\n".join((name, *(f"{field}={value}" for field, value in sorted(fields.items()))))
    digest = hmac.digest(key, told.encode("utf-8", "surrogatepass"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _kept(path: Path) -> bytes:
    """The secret; a new one where there is none, or half of one."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            secret = path.read_bytes()
            if len(secret) == SIZE:
                return secret
            path.unlink(missing_ok=True)
        _make(path)
    return path.read_bytes()


def _make(path: Path) -> None:
    """Write a secret, whole or not at all; another process may be doing the same, and then the first one's counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            os.write(file, secrets.token_bytes(SIZE))
            os.fsync(file)
        finally:
            os.close(file)
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
