"""The routes of every listener that tell what it serves: the OpenAPI document, its page, and where they are.

Both are made when somebody first asks, in a thread, and kept: a few hundred kilobytes a listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from gateway.settings import Mounted
from gateway.web.exchange import Exchange, Handler

_HTML = b"text/html; charset=utf-8"
_TEXT = b"text/plain; charset=utf-8"


class _Told:
    """What a listener says of itself, made once."""

    def __init__(self, mounts: Sequence[Mounted], *, keys: bool) -> None:
        self._mounts = mounts
        self._keys = keys
        self._making: asyncio.Task[tuple[bytes, bytes, str]] | None = None

    async def get(self) -> tuple[bytes, bytes, str]:
        """The document, its page, and the page's policy."""
        if self._making is None or (self._making.done() and self._making.exception() is not None):
            self._making = asyncio.create_task(asyncio.to_thread(self._make))
        return await asyncio.shield(self._making)  # a client that leaves takes it from nobody else

    def _make(self) -> tuple[bytes, bytes, str]:
        from gateway.web.described.document import document
        from gateway.web.described.page import POLICY, page

        whole = document(self._mounts, keys=self._keys)
        return whole, page(msgspec.json.decode(whole)), POLICY


def routes(mounts: Sequence[Mounted], *, keys: bool) -> dict[str, dict[str, Handler]]:
    """The routes of a listener with these dialects. ``keys``: whether one is needed."""
    told = _Told(mounts, keys=keys)
    names = " and ".join(f"{mounted.name} under {mounted.prefix or '/'}" for mounted in mounts)
    help_text = (
        f"dragoman speaks {names}\n\n/schema        every route, as a page\n/openapi.json  the same as OpenAPI 3.1\n"
    )

    async def document(exchange: Exchange) -> None:
        whole, _, _ = await told.get()
        await exchange.reply(200, b"application/json", whole)

    async def page(exchange: Exchange) -> None:
        _, html, policy = await told.get()
        headers = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await exchange.reply(200, _HTML, html, headers)

    async def words(exchange: Exchange) -> None:
        await exchange.reply(200, _TEXT, help_text.encode())

    async def elsewhere(exchange: Exchange) -> None:
        await exchange.reply(307, _TEXT, b"/schema\n", [(b"location", b"/schema")])

    return {
        path: {"GET": handler, "HEAD": handler}
        for path, handler in {
            "/openapi.json": document,
            "/docs": elsewhere,  # where other servers have theirs
            "/redoc": elsewhere,
            "/schema": page,
            "/schema/openapi.json": document,
            "/help": words,
        }.items()
    }
