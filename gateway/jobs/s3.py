"""Pictures in an object store that speaks S3: AWS's own, or MinIO, Ceph, Garage, R2 ... at an ``endpoint``.

What is not in the URL comes from the environment, as AWS's own tools have it (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` ...).
A picture is there, or not: no store shows half of one. No name and no key is ever logged or told.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

from canonical.errors import NotFound, StorageFailed
from gateway.jobs.files import is_name, new_name

if TYPE_CHECKING:
    from obstore.store import S3Store

PATIENCE = 20.0
"""Seconds for which a store that does not answer is asked again: it may be starting anew."""
SOON = 2.0
"""The same at the start, which waits for it."""

_OPTIONS = frozenset(
    {"endpoint", "region", "access_key_id", "secret_access_key", "session_token", "virtual_hosted_style_request"}
)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.IGNORECASE)
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_STATUS = re.compile(r"status code: (\d{3})")
_REFUSED = "the object store refuses its keys"
_WORDS = {
    "NoSuchBucket": "the object store has no such bucket",
    "AccessDenied": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "InvalidToken": _REFUSED,
    "ExpiredToken": _REFUSED,
    "403": _REFUSED,
    "401": _REFUSED,
    "301": "the object store has that bucket elsewhere: its region or endpoint is wrong",
    "QuotaExceeded": "the object store is full",
    "XMinioStorageFull": "the object store is full",
    "507": "the object store is full",
}
_AWAY = "the object store does not answer"
logger = logging.getLogger("dragoman")


def check_url(url: str) -> None:
    """Raises ValueError, which does not quote it, where ``url`` is none of a bucket."""
    _read(url)


class S3Files:
    """The pictures below one prefix of one bucket."""

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self._url = url
        self._patience = patience
        self._store: S3Store | None = None

    async def check(self) -> None:
        """See whether it can be written. One that does not answer now may later.

        Raises:
            ValueError: it never will, in one line: no such bucket, keys that are refused.
        """
        import obstore
        from obstore.exceptions import BaseError

        name = new_name(input=True)
        try:
            store = self._made(min(SOON, self._patience))
            await obstore.put_async(store, name, b"dragoman", use_multipart=False)
            await obstore.delete_async(store, name)
        except (BaseError, OSError) as error:
            words, code = _told(error)
            if words != _AWAY:
                raise ValueError(f"{words}{f' ({code})' if code else ''}") from None
            logger.warning("%s; pictures cannot be kept until it does", words)

    async def put(self, name: str, data: bytes) -> None:
        """Keep it; durable when this returns. Raises StorageFailed."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            await obstore.put_async(self._opened(), name, data, use_multipart=False)
        except (BaseError, OSError) as error:
            raise _failed(error, "the picture cannot be kept") from None

    async def get(self, name: str) -> bytes:
        """What was put. Raises NotFound, StorageFailed."""
        import obstore
        from obstore.exceptions import BaseError

        if not is_name(name):
            raise NotFound("there is no such picture")
        try:
            found = await obstore.get_async(self._opened(), name)
            return bytes(await found.bytes_async())
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError) and _told(error)[1] != "NoSuchBucket":
                raise NotFound("there is no such picture") from None
            raise _failed(error, "the picture cannot be read") from None

    async def delete(self, names: Sequence[str]) -> None:
        """Forget these; one that is not there is none to forget. Raises StorageFailed."""
        import obstore
        from obstore.exceptions import BaseError

        ours = list(filter(is_name, names))
        if not ours:
            return
        try:
            await obstore.delete_async(self._opened(), ours)
        except (BaseError, OSError) as error:
            if not isinstance(error, FileNotFoundError):
                raise _failed(error, "the picture cannot be deleted") from None

    async def names(self) -> AsyncIterator[tuple[str, float]]:
        """All pictures and inputs, and when each was written, in seconds since 1970. Raises StorageFailed."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            async for some in obstore.list(self._opened()):
                for one in filter(lambda one: is_name(one["path"]), some):
                    yield one["path"], one["last_modified"].timestamp()
        except (BaseError, OSError) as error:
            raise _failed(error, "the pictures cannot be listed") from None

    async def close(self) -> None:
        """Let go of the connections."""
        self._store = None

    def _opened(self) -> S3Store:
        if self._store is None:
            self._store = self._made(self._patience)
        return self._store

    def _made(self, patience: float) -> S3Store:
        from obstore.store import S3Store

        bucket, prefix, options = _read(self._url)
        endpoint = options.get("endpoint") or next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
        return S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=3),
                "timeout": timedelta(seconds=60),
            },
            retry_config={
                "max_retries": 100,
                "retry_timeout": timedelta(seconds=patience),
                "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
            },
            **cast("Any", options),
        )


def _read(url: str) -> tuple[str, str, dict[str, str]]:
    """The bucket, the prefix, and what else is said. Raises ValueError, which does not quote it."""
    try:
        split = urlsplit(url)
        options = parse_qsl(split.query, strict_parsing=True) if split.query else []
        plain = not (split.username or split.password or split.port or split.fragment)
    except ValueError:
        raise ValueError("an object store is s3://bucket/prefix?endpoint=https://host") from None
    prefix = split.path.strip("/")
    if split.scheme != "s3" or not plain or not _BUCKET.fullmatch(split.netloc) or "//" in split.path:
        raise ValueError("an object store is s3://bucket/prefix?endpoint=https://host")
    if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
        raise ValueError("a prefix has letters, digits, '.', '_', '-' and '/' alone")
    if unknown := [name for name, _ in options if name not in _OPTIONS]:
        raise ValueError(f"{unknown[0][:40]!r} says nothing of an object store (one of {', '.join(sorted(_OPTIONS))})")
    if len({name for name, _ in options}) < len(options):
        raise ValueError("something of the object store is said twice")
    said = dict(options)
    if "endpoint" in said and not said["endpoint"].startswith(("http://", "https://")):
        raise ValueError("an endpoint is http://host:port or https://host")
    if ("access_key_id" in said) != ("secret_access_key" in said):
        raise ValueError("access_key_id and secret_access_key go together")
    return split.netloc, prefix, said


def _told(error: Exception) -> tuple[str, str]:
    """What is wrong, in our words, and the store's own code for it."""
    text = str(error)
    found = _CODE.search(text) or _STATUS.search(text)
    code = found[1] if found else ""
    return _WORDS.get(code, _AWAY), code


def _failed(error: Exception, what: str) -> StorageFailed:
    words, code = _told(error)
    logger.error("%s: %s (%s)", what, words, code or type(error).__name__)
    return StorageFailed(f"{what}: {words}")
