"""Keys as the password of HTTP Basic: A1111's clients have a field for a name and a password, and none for a key.

Basic d2hvZXZlcjpzZWNyZXQ=      whoever:secret; what is before the colon does not matter, and may be missing with it

Only on the paths of that dialect: everywhere else a browser could be made to send what it keeps for a server.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from gateway.web.automatic1111 import ROUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.types import ASGIApp, Receive, Scope, Send

    from gateway.settings import Mounted

LIMIT = 4096
"""Bytes of a header in which a key is looked for."""


def with_key(app: ASGIApp, mounts: Sequence[Mounted]) -> ASGIApp:
    """``app``, which gets the keys of the dialect's requests as it gets those of others."""
    paths = frozenset(mounted.prefix + path for mounted in mounts if mounted.name == "automatic1111" for path in ROUTES)
    if not paths:
        return app

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in paths:
            keys = [key for name, value in scope["headers"] if name == b"authorization" and (key := _key(value))]
            if keys:
                scope["headers"] = [*scope["headers"], *((b"x-api-key", key) for key in keys)]
        await app(scope, receive, send)

    return call


def _key(value: bytes) -> bytes:
    if value[:6].lower() != b"basic " or len(value) > LIMIT:
        return b""
    try:
        told = base64.b64decode(value[6:].strip(), validate=True)
    except binascii.Error:
        return b""
    name, _, password = told.partition(b":")
    return password or name
