"""Keys that stand in the body or the query, where a dialect's clients put them: LibreTranslate's ``api_key``.

What stands there is moved into a header before the guard looks, on the paths of that dialect alone and only for who has
sent no key in a header: what decides stays the guard. The body is read no further than a request without a key may make us.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from adapters.libretranslate.bodies import key_of
from backends import threads
from gateway.web.libretranslate import LONG, ROUTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

    from gateway.settings import Mounted

LIMIT = 2 * 1024 * 1024
"""Bytes of a body in which a key is looked for."""
ROOM = 64 * 1024 * 1024
"""Bytes of all such bodies at once: those who have no key must not fill the memory. Beyond, keys in bodies count for nothing."""
_KEYS = frozenset((b"authorization", b"x-api-key", b"api-key"))


def with_header(app: ASGIApp, mounts: Sequence[Mounted]) -> ASGIApp:
    """``app``, which gets the keys of the dialect's requests as it gets those of others."""
    paths = frozenset(
        mounted.prefix + path for mounted in mounts if mounted.name == "libretranslate" for path in ROUTES
    )
    if not paths:
        return app
    room = _Room(ROOM)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in paths and not any(name in _KEYS for name, _ in scope["headers"]):
            key, receive = await _look(cast("HTTPScope", scope), receive, room)
            if key:
                scope["headers"] = [*scope["headers"], (b"x-api-key", key)]
        await app(scope, receive, send)

    return call


class _Room:
    """What is left for bodies that are being searched."""

    def __init__(self, size: int) -> None:
        self.left = size


async def _look(scope: HTTPScope, receive: Receive, room: _Room) -> tuple[bytes, Receive]:
    """The key that a request has beside its headers, if any, and what gives its body again."""
    messages: deque[Any] = deque()
    body, more = b"", True

    async def again() -> Any:
        return messages.popleft() if messages else await receive()

    try:
        while more and len(body) <= LIMIT and room.left > 0:
            message = await receive()
            messages.append(message)
            more = message["type"] == "http.request" and message["more_body"]
            if message["type"] == "http.request":
                body += message["body"]
                room.left -= len(message["body"])
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        find = partial(key_of, kind, b"" if more else body, scope["query_string"])
        # Two megabytes of a form take a third of a second, and nobody has shown a key yet.
        key = await threads.call(find, name="key") if len(body) > LONG else find()
        return key.encode("latin-1", "replace"), again
    finally:
        room.left += len(body)
