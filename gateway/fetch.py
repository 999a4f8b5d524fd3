"""Images behind links: fetched here, for every backend alike, so that none reaches into a network on a client's word.

A name is looked up once, all its addresses must be public, and the connection goes to one of these very addresses:
a second look-up could answer otherwise. No proxy, no cookie, no credentials. Each redirect is a link like the first.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence

from msgspec import structs

from backends.links import Entry, Link, entry_for, is_public, read_entry, read_link, read_redirect
from backends.transport import Address, Client, Limits, Resolve, Response, look_up, tls_context
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, Busy, InvalidRequest, Unsupported
from canonical.features import Feature
from canonical.media import IMAGE_LIMIT, Blob, image_from_bytes, image_type
from canonical.messages import Image, Message, Part
from canonical.requests import Generate
from gateway.settings import Images

REDIRECTS = 3
TOTAL = 20 * 1024 * 1024
"""Bytes that the linked images of one request have together: a small request costs five times as much memory."""
AT_ONCE = 4
"""Links of one request that are fetched at the same time."""
PER_HOST = 16
"""Fetches from one entry of the list at the same time, over all requests: a slow host holds up nobody but its own."""
ADDRESSES = 3
"""Addresses of a name that are tried."""
CONNECT = 3.0
"""Seconds for a connection to one of them."""
MAGIC = 16
"""Bytes that tell an image."""

_HEADERS = {"User-Agent": "dragoman", "Accept": "image/png, image/jpeg, image/webp, image/gif"}
_MOVED = frozenset({301, 302, 303, 307, 308})
_NOWHERE = "its host has no public address"
"""Of private names and of unknown ones: which of the two would tell what names an inner network has."""
_TOO_LONG = "its server took too long"


class _Failed(Exception):
    """Why there is no image, in words for the caller."""


class _Room:
    """The bytes that the images of one request may still have."""

    def __init__(self, total: int) -> None:
        self.total = self._left = total

    def take(self, size: int) -> None:
        """Raises _Failed when there is not so much left."""
        self._left -= size
        if self._left < 0:
            raise _Failed(f"the linked images of one request may have {self.total} bytes together")


class Fetcher:
    """Follows the links of requests, as far as the configuration lets it."""

    def __init__(
        self,
        images: Images,
        *,
        total: int = TOTAL,
        resolve: Resolve = look_up,
        public: Callable[[str], bool] = is_public,
        connect: float = CONNECT,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare, without connecting. ``total`` is how many bytes the linked images of one request may have.

        Raises:
            ValueError: an item of ``images.hosts`` is no host.
        """
        self._size = min(images.size, IMAGE_LIMIT)
        self._time = images.time
        self._total = total
        self._resolve = resolve
        self._public = public
        self._tls = tls
        self._turns = {read_entry(host): asyncio.Semaphore(PER_HOST) for host in images.hosts}
        self._limits = Limits(
            connect=min(connect, images.time),
            first_byte=images.time,
            idle=images.time,
            total=images.time,
            connections=1,
            reply=2 * self._size + 128 * 1024,  # framing included, in pieces of any sense
        )

    def links(self, request: Generate) -> list[str]:
        """The links of a request, each once.

        Raises:
            Unsupported: one is no plain link, or its host is not listed. Nothing has been connected.
        """
        found = dict.fromkeys(
            part.source
            for message in request.messages
            for part in message.parts
            if isinstance(part, Image) and isinstance(part.source, str)
        )
        for url in found:
            try:
                self._listed(url)
            except _Failed as error:
                raise Unsupported(str(error), param=_field(request)) from None
        return list(found)

    async def follow(self, request: Generate, images: dict[str, Blob] | None = None) -> Generate:
        """The request with the images instead of the links to them; the same one if it has none.

        ``images``: those that are known already, by their links; it learns the others.

        Raises:
            Unsupported: as for ``links``.
            InvalidRequest: there is no image to be had; the message says whose fault it is.
            Busy: too many links to one host are being followed.
        """
        links = self.links(request)
        if not links:
            return request
        images = {} if images is None else images
        await self.fetch(links, images, _field(request))
        return _with_images(request, images)

    async def fetch(self, links: Sequence[str], images: dict[str, Blob], field: str) -> None:
        """Learn the images behind those ``links`` that ``images`` does not know; ``field`` is where the request has them.

        Raises:
            InvalidRequest, Busy: as ``follow``.
        """
        room = _Room(self._total)
        turns = asyncio.Semaphore(AT_ONCE)

        async def fetch(url: str) -> None:
            async with turns:
                try:
                    images[url] = await self._image(url, room)
                except _Failed as error:
                    words = f"the image at {_shown(url)} cannot be used: {error}"
                    raise InvalidRequest(words, param=field, code="invalid_image_url") from None

        try:
            async with asyncio.TaskGroup() as group:
                for url in dict.fromkeys(links):
                    if url not in images:
                        group.create_task(fetch(url))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _listed(self, url: str) -> tuple[Link, Entry]:
        try:
            link = read_link(url)
        except ValueError as error:
            raise _Failed(f"a link to an image cannot be followed: {error}") from None
        entry = entry_for(link, self._turns)
        if entry is None:
            raise _Failed(
                f"links to images are followed only to hosts that the operator lists (images.hosts in the configuration), "
                f"and {link.host[:100]!r} is not listed: send the image as a data: URL"
            )
        return link, entry

    async def _image(self, url: str, room: _Room) -> Blob:
        link, entry = self._listed(url)
        begun = False
        try:
            async with asyncio.timeout(self._time) as patience:
                for _ in range(REDIRECTS + 1):
                    async with self._turns[entry]:
                        if not begun:
                            begun = True
                            patience.reschedule(asyncio.get_running_loop().time() + self._time)
                        found = await self._ask(link, room)
                    if isinstance(found, bytes):
                        return _image(found)
                    link, entry = found
        except TimeoutError:
            if begun:
                raise _Failed(_TOO_LONG) from None
            raise Busy("too many links to images are being followed", retry_after=1) from None
        raise _Failed(f"it is redirected more than {REDIRECTS} times")

    async def _ask(self, link: Link, room: _Room) -> bytes | tuple[Link, Entry]:
        """What one server has: the bytes, or where to go on."""
        why = ""
        for address in (await self._addresses(link))[:ADDRESSES]:
            if link.tls and self._tls is None:
                self._tls = await asyncio.to_thread(tls_context, Address("", 0))
            client = Client("image", Address(link.host, link.port, link.tls, at=address), self._limits, tls=self._tls)
            try:
                response = await client.send(client.head("GET", link.target, _HEADERS))
                try:
                    if response.status in _MOVED:
                        return self._moved(link, response)
                    return await self._read(response, room)
                finally:
                    response.close()
            except BackendUnavailable:
                why = f"its server cannot be reached{', or has no certificate to be trusted' if link.tls else ''}"
            except BackendTimeout:  # the way to this address may be closed, as IPv6 is in many a network
                why = _TOO_LONG
            except BackendError:
                raise _Failed("its server sent no proper answer") from None
            finally:
                await client.close()
        raise _Failed(why)

    async def _addresses(self, link: Link) -> Sequence[str]:
        try:
            found = await self._resolve(link.host, link.port)
        except (OSError, UnicodeError):
            found = ()
        # One that is not public among them is no accident, and which of them is used would be chance.
        if not found or not all(map(self._public, found)):
            raise _Failed(_NOWHERE)
        return found

    def _moved(self, link: Link, response: Response) -> tuple[Link, Entry]:
        try:
            there = read_redirect(link, response.headers.get(b"location", b""))
        except ValueError as error:
            raise _Failed(f"it is redirected, and cannot be followed: {error}") from None
        entry = entry_for(there, self._turns)
        if entry is None:
            raise _Failed("it is redirected to a host that the operator does not list")
        return there, entry

    async def _read(self, response: Response, room: _Room) -> bytes:
        if response.status != 200:
            raise _Failed(f"its server answered with status {response.status}")
        too_large = _Failed(f"it has more than {self._size} bytes")
        length = response.header(b"content-length")
        if length.isdecimal() and int(length[:20]) > self._size:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        while piece := await response.read():
            pieces.append(piece)
            known = size >= MAGIC
            size += len(piece)
            if size > self._size:
                raise too_large
            room.take(len(piece))
            if not known and size >= MAGIC and image_type(b"".join(pieces)) is None:
                break  # whatever it is, the rest need not come
        return b"".join(pieces)


def _image(data: bytes) -> Blob:
    try:
        return image_from_bytes(data, param="")
    except InvalidRequest as error:
        raise _Failed(error.message) from None


def _field(request: Generate) -> str:
    """What the client's dialect calls the field that its links stand in."""
    origin = request.origin
    if Feature.IMAGE_LINK not in origin.vocabulary.names:
        return "messages"
    return origin.vocabulary.name(Feature.IMAGE_LINK, origin.fields())


def _shown(url: str) -> str:
    """A link without its query, which may hold a secret."""
    return url.partition("?")[0][:200]


def _with_images(request: Generate, images: dict[str, Blob]) -> Generate:
    def part_of(part: Part) -> Part:
        if isinstance(part, Image) and isinstance(part.source, str):
            return structs.replace(part, source=images[part.source])
        return part

    def message_of(message: Message) -> Message:
        return structs.replace(message, parts=tuple(map(part_of, message.parts)))

    return structs.replace(
        request,
        messages=tuple(map(message_of, request.messages)),
        # The body still has the links: whoever writes to a backend must take the messages.
        origin=structs.replace(request.origin, verbatim=False),
    )
