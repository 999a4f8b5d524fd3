"""A model of ours to a registry: docker's upload protocol, in pieces, as Ollama's server speaks it.

    POST  /v2/acme/bot/blobs/uploads/            202, Location: where this upload goes on
    PATCH <location>  Content-Range: 0-16777215  202, Location: where the next piece goes
                                                 or 307: the piece goes by PUT to that address, without our token
    PUT   <location>?digest=sha256:...           201: the registry has checked it

What the registry has is not sent. A piece that broke is sent from where the registry says that it stands.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from urllib.parse import quote

from adapters.ollama.names import Name
from backends.base import Tell
from backends.fetching.patience import Failed, Missing, Pace, Patience
from backends.fetching.registry import Registry
from backends.links import Link, read_redirect
from backends.store import Store
from backends.store.manifests import Layer, read_manifest
from backends.transport import Response
from canonical.digests import normal
from canonical.errors import BackendError, ModelNotFound
from canonical.progress import Progress

PIECE = 16 * 1024 * 1024
"""Bytes sent at once, and held in memory; stores behind registries want 5 MiB at least."""

_STANDS = re.compile(r"(?:bytes=)?0-([0-9]{1,16})")


async def push(registry: Registry, name: Name, store: Store, tell: Tell, *, pace: Pace) -> None:
    """Send what the registry lacks, and the manifest last. Raises ModelNotFound, BackendError."""
    tell(Progress(status="retrieving manifest"))
    content = await asyncio.to_thread(store.manifest, name)
    if content is None or await asyncio.to_thread(store.find, name) is None:
        raise ModelNotFound("file does not exist", param="model")
    manifest = read_manifest(content)
    for layer in {normal(one.digest): one for one in (*manifest.layers, manifest.config) if one.digest}.values():
        await _Upload(registry, layer, store.blob(layer.digest), tell=tell, pace=pace).run()
    tell(Progress(status="pushing manifest"))
    headers = {"Content-Type": manifest.media_type}
    (await registry.ask("PUT", registry.link(f"/manifests/{name.tag}"), headers, content)).close()


class _Upload:
    """One blob."""

    def __init__(self, registry: Registry, layer: Layer, path: Path, *, tell: Tell, pace: Pace) -> None:
        self._registry = registry
        self._digest = normal(layer.digest)
        self._size = layer.size
        self._path = path
        self._tell = tell
        self._pace = pace
        self._piece = PIECE
        self._sums: list[bytes] | None = []
        """MD5 of the pieces, of which stores behind registries make the tag of the whole; None: not cut evenly."""

    async def run(self) -> None:
        registry = self._registry
        self._told(0)
        try:
            (await registry.ask("HEAD", registry.link(f"/blobs/{self._digest}"))).close()
        except Missing:
            await self._send()
        self._told(self._size)

    async def _send(self) -> None:
        registry = self._registry
        start = registry.link("/blobs/uploads/")
        response = await registry.ask("POST", start, {"Content-Type": "application/octet-stream"})
        response.close()
        if response.status == 201:
            return
        place, at = _next(response, start), 0
        while at < self._size:
            place, at = await self._advance(place, at)
            self._told(at)
        tag = ""
        if self._sums is not None:
            whole = hashlib.md5(b"".join(self._sums), usedforsecurity=False).hexdigest()
            tag = f"&etag={whole}-{len(self._sums)}"
        target = place.target + ("&" if "?" in place.target else "?") + f"digest={quote(self._digest)}{tag}"
        end = Link(place.tls, place.host, place.port, target)
        (await registry.ask("PUT", end, {"Content-Type": "application/octet-stream"})).close()

    async def _advance(self, place: Link, at: int) -> tuple[Link, int]:
        """Send one piece, however many tries it takes; where the upload stands then."""
        patience = Patience(self._pace)
        while True:
            data, md5 = await asyncio.to_thread(self._read, at)
            try:
                response = await self._try(place, at, data)
            except Failed as failure:
                await patience.after(failure)
                place, stands = await self._stands(place, at)
                if stands != at:
                    self._sums = None
                    if stands >= at + len(data):
                        return place, stands
                    at = stands
            else:
                if self._sums is not None:
                    self._sums.append(md5)
                return response, at + len(data)

    async def _try(self, place: Link, at: int, data: bytes) -> Link:
        """Where the next piece goes. Raises Failed."""
        registry = self._registry
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{at}-{at + len(data) - 1}",
            "X-Redirect-Uploads": "1",
        }
        response = await registry.ask("PATCH", place, headers, data, follow=False, once=True)
        response.close()
        after = _next(response, place)
        if response.status == 307:
            direct = _link(response, b"location", place)
            (await registry.ask("PUT", direct, {"Content-Type": "application/octet-stream"}, data, once=True)).close()
        elif response.status >= 300:
            raise BackendError("the registry redirects an upload in a way that is not known")
        return after

    async def _stands(self, place: Link, at: int) -> tuple[Link, int]:
        """What the registry has of it; ``at``, where it does not say."""
        try:
            response = await self._registry.ask("GET", place, once=True)
        except (BackendError, Failed):
            return place, at
        response.close()
        found = _STANDS.fullmatch(response.header(b"range").strip())
        stands = int(found[1]) + 1 if found else at
        return _next(response, place), stands if 0 < stands <= self._size else at

    def _read(self, at: int) -> tuple[bytes, bytes]:
        with self._path.open("rb") as file:
            file.seek(at)
            data = file.read(min(self._piece, self._size - at))
        if not data:
            raise BackendError("a blob of the model is shorter than its manifest says")
        return data, hashlib.md5(data, usedforsecurity=False).digest()

    def _told(self, there: int) -> None:
        digest = self._digest
        self._tell(Progress(status=f"pushing {digest[7:19]}", digest=digest, total=self._size, completed=there))


def _next(response: Response, place: Link) -> Link:
    if response.headers.get(b"docker-upload-location"):
        return _link(response, b"docker-upload-location", place)
    # A redirected piece's Location is its own, not the next one's.
    return (
        place
        if response.status == 307 or not response.headers.get(b"location")
        else _link(response, b"location", place)
    )


def _link(response: Response, header: bytes, place: Link) -> Link:
    try:
        return read_redirect(place, response.headers.get(header, b""))
    except ValueError as error:
        raise BackendError(f"the registry sends an upload on to where it cannot be followed: {error}") from None
