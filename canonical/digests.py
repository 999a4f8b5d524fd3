"""Digests of files and manifests, as they are written everywhere: ``sha256:<64 lower-case hex>``."""

from __future__ import annotations

import hashlib
import re

from canonical.errors import InvalidRequest

_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})", re.IGNORECASE)
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")


def digest_of(content: bytes) -> str:
    """Of bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


EMPTY = digest_of(b"")


def is_digest(text: str) -> bool:
    """Whether ``normal`` takes it."""
    return _DIGEST.fullmatch(text) is not None


def is_blob(file_name: str) -> bool:
    """Whether a file is called as stores call a blob: ``sha256-<64 lower-case hex>``."""
    return _BLOB.fullmatch(file_name) is not None


def normal(text: str) -> str:
    """In lower case; ``-`` for ``:``, as in names of files, is taken too. Raises InvalidRequest."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise InvalidRequest("invalid digest format", param="digest")
    return f"sha256:{found[1].lower()}"
