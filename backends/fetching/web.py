"""Requests to sources: redirects, addresses and secrets.

On the gateway's own HTTP client: it streams with back pressure (1 to 3 GB/s on loopback), bounds every head, refuses
compression and connects to the very address that was checked. A host's secret goes to its own origin alone, never with
a redirect to another. https never leads to http.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Self

from backends.fetching.hosts import Hosts
from backends.links import Link, read_redirect
from backends.transport import Address, Client, Limits, Response, tls_context
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable

REDIRECTS = 5
ADDRESSES = 3
"""Addresses of a name that are tried."""
PATIENCE = Limits(
    connect=10.0,
    first_byte=60.0,
    idle=30.0,  # a source that is silent for so long has stalled: another connection may do better
    total=24 * 3600.0,
    connections=64,
    reply=1 << 62,  # a model is as large as it is; what is taken is counted where it is read
)

_MOVED = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": "dragoman"}


class Astray(BackendError):
    """A redirect leads nowhere, and will not the next time."""


class Web:
    """The connections of one pull or push."""

    def __init__(self, hosts: Hosts, *, limits: Limits = PATIENCE, tls: ssl.SSLContext | None = None) -> None:
        self.hosts = hosts
        self._limits = limits
        self._tls = tls
        self._clients: dict[str, list[Client]] = {}

    async def ask(
        self,
        method: str,
        link: Link,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        secret: str = "",
        follow: bool = True,
    ) -> tuple[Response, Link]:
        """The head of the answer, of whatever status, and where it came from in the end. The caller closes it.

        ``secret`` is the value of ``Authorization`` for the origin of ``link``.

        Raises:
            BackendError, BackendUnavailable, BackendTimeout.
        """
        origin = link.origin
        for _ in range(REDIRECTS + 1):
            sent = {**_HEADERS, **(headers or {})}
            if secret and link.origin == origin:
                sent["Authorization"] = secret
            response = await self._send(method, link, sent, body)
            if not follow or response.status not in _MOVED:
                return response, link
            location = response.headers.get(b"location", b"")
            response.close()
            try:
                link = read_redirect(link, location)
            except ValueError as error:
                raise Astray(f"{link.host[:100]!r} redirects, and cannot be followed: {error}") from None
        raise Astray(f"{link.host[:100]!r} redirects more than {REDIRECTS} times")

    async def body(self, response: Response, limit: int, *, within: float = 60.0) -> bytes:
        """A small answer whole. Raises BackendError: it is not small, or takes too long."""
        try:
            async with asyncio.timeout(within):
                return await response.body(limit)
        except TimeoutError:
            raise BackendTimeout("the source sends too slowly") from None
        finally:
            response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        for clients in self._clients.values():
            for client in clients:
                await client.close()
        self._clients.clear()

    async def _send(self, method: str, link: Link, headers: Mapping[str, str], body: bytes) -> Response:
        clients = self._clients.get(link.origin)
        if clients is None:
            clients = await self._connected(link)
        for client in list(clients):
            try:
                return await client.send(client.head(method, link.target, headers), body)
            except (BackendUnavailable, BackendTimeout):
                if client is clients[-1]:
                    raise
                # The way to this address may be closed, as IPv6 is in many a network.
        raise AssertionError("a name has an address")

    async def _connected(self, link: Link) -> list[Client]:
        """A client for each address of the host, which is looked up once."""
        addresses = await self.hosts.addresses(link)
        if link.tls and self._tls is None:
            self._tls = await asyncio.to_thread(tls_context, Address("", 0))
        known = self._clients.get(link.origin)  # another request may have been here meanwhile
        if known is None:
            known = self._clients[link.origin] = [
                Client(link.host[:100], Address(link.host, link.port, link.tls, at=at), self._limits, tls=self._tls)
                for at in addresses[:ADDRESSES]
            ]
        return known
