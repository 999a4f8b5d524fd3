"""Models of a registry that speaks Ollama's protocol: docker's, version 2, with layers of its own kinds.

    GET /v2/library/qwen3/manifests/latest                    the manifest: digests and sizes of all layers
    GET /v2/library/qwen3/blobs/sha256:3f8e...                a layer, mostly by way of a redirect to a signed address

What is there already is not fetched, and the manifest is kept last: a model is listed only when it is whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.ollama import names
from adapters.ollama.names import Name
from backends.base import Tell
from backends.fetching import tokens
from backends.fetching.blobs import Blobs, Part
from backends.fetching.download import Wanted
from backends.fetching.patience import Denied, Failed, Missing, Pace, Patience, failed, judge
from backends.fetching.web import Web
from backends.links import Link
from backends.store.manifests import MANIFEST, SIZE_LIMIT, Layer, Manifest, read_manifest
from backends.transport import Response
from canonical.digests import EMPTY, normal
from canonical.errors import BackendError, ModelNotFound, Unsupported
from canonical.progress import Progress

WEIGHTS = frozenset({"model", "projector", "adapter", "draft"})
TEXTS = frozenset({"template", "system", "params", "messages", "license"})
TEXT_LIMIT = 4 * 1024 * 1024
"""Bytes of a layer that is read whole when the model is used."""
LAYERS = 256
_DENIALS = 4
"""Tokens that one blob may need: they run out while a large one is fetched."""


class Registry:
    """One repository at one registry."""

    def __init__(self, origin: Link, name: Name, *, web: Web, pace: Pace) -> None:
        self.web = web
        self._pace = pace
        self._origin = origin
        self._source = web.hosts.source(origin)
        self._base = f"/v2/{name.namespace}/{name.model}"
        self.secret = tokens.standing(self._source)

    def link(self, path: str) -> Link:
        """A path below the repository."""
        return Link(self._origin.tls, self._origin.host, self._origin.port, self._base + path)

    async def ask(
        self,
        method: str,
        link: Link,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        follow: bool = True,
        once: bool = False,
    ) -> Response:
        """A good answer, however many tries it takes; ``once``: one, and a token where it is asked for.

        Raises:
            BackendError: there is none. Failed: there may be one, and another try is the caller's to make.
        """
        patience = Patience(self._pace)
        denied = 0
        while True:
            try:
                # Elsewhere than at the registry itself the secret is nobody's business.
                secret = self.secret if link.origin == self._origin.origin else ""
                try:
                    response, there = await self.web.ask(method, link, headers, body, secret=secret, follow=follow)
                except BackendError as error:
                    raise failed(error) from None
                verdict = judge(response, there.host, f"{method} of {self._base[4:]}")
                if verdict is None or (not follow and 300 <= response.status < 400):
                    return response
                response.close()
                raise verdict
            except Denied as error:
                denied += 1
                if denied > 1:
                    raise BackendError("unauthorized: access denied") from None
                await self.authorize(error)
            except Failed as failure:
                if once:
                    raise
                await patience.after(failure)

    async def authorize(self, denied: Denied) -> None:
        """Get what the registry asks for. Raises BackendError."""
        self.secret = await tokens.secret_for(denied.challenge, self._origin, self._source, self.web)

    async def manifest(self, tag: str) -> bytes:
        """Raises ModelNotFound, BackendError."""
        patience = Patience(self._pace)
        while True:
            try:
                response = await self.ask("GET", self.link(f"/manifests/{tag}"), {"Accept": MANIFEST})
            except Missing:
                raise ModelNotFound("pull model manifest: file does not exist", param="model") from None
            try:
                return await self.web.body(response, SIZE_LIMIT)
            except BackendError as error:
                await patience.after(Failed(error))

    async def blob(self, layer: Layer, blobs: Blobs, tell: Tell) -> None:
        """Fetch one layer."""
        digest = normal(layer.digest)
        for tried in range(_DENIALS):
            wanted = Wanted(link=self.link(f"/blobs/{digest}"), digest=digest, size=layer.size, secret=self.secret)
            try:
                await blobs.fetch(wanted, tell)
            except Denied as error:
                if tried == _DENIALS - 1:
                    raise BackendError("unauthorized: access denied") from None
                await self.authorize(error)
            else:
                return


async def pull(registry: Registry, name: Name, blobs: Blobs, tell: Tell) -> None:
    """Fetch what is new of a model, and give it its name."""
    tell(Progress(status="pulling manifest"))
    content = await registry.manifest(name.tag)
    manifest = read_manifest(content)
    check(manifest, names.written(name))
    parts = tuple({normal(one.digest): one for one in (*manifest.layers, manifest.config)}.values())
    async with blobs.claimed(Part(normal(one.digest), one.size) for one in parts):
        for one in parts:
            await registry.blob(one, blobs, tell)
        await blobs.check_weights(one.digest for one in manifest.layers if one.kind in WEIGHTS)
        await blobs.commit(name, content, tell)


def check(manifest: Manifest, name: str) -> None:
    """Raises Unsupported, BackendError: not a model that can be served, before any of it is fetched."""
    if len(manifest.layers) > LAYERS and not any(one.kind == "tensor" for one in manifest.layers):
        raise BackendError(f"the manifest has more than {LAYERS} layers")
    for one in manifest.layers:
        if one.kind not in WEIGHTS | TEXTS:
            kind = one.media_type.rpartition("/")[2][:100]
            raise Unsupported(
                f"{name!r} has layers of kind {kind!r}: only models in GGUF form are served here", param="model"
            )
    if not manifest.of("model") or not manifest.config.digest:
        raise Unsupported(f"{name!r} has no weights in GGUF form", param="model")
    for one in (*manifest.layers, manifest.config):
        if one.kind not in WEIGHTS and one.size > TEXT_LIMIT:
            raise BackendError(f"the manifest has a text of {one.size} bytes, where {TEXT_LIMIT} are the most")
        if not one.size and normal(one.digest) != EMPTY:
            raise BackendError("the manifest says that a blob is empty, and its digest that it is not")
