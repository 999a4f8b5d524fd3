"""What an Ollama server is told to do with its models: pull, push, create, copy, delete and blobs, over its own API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from adapters.ollama import managing, names
from backends.fetching.hosts import Hosts
from backends.links import read_link
from backends.upstream import Upstream
from canonical.errors import InvalidRequest
from canonical.progress import Progress
from canonical.recipe import Recipe


class Forwarding:
    """The part of a backend that passes on what changes which models there are."""

    _upstream: Upstream
    _hosts: Hosts
    """Where clients may send it: it has no list of its own, and stands in a net of its own."""

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Have it fetch a model. Closing the generator leaves the server alone, which then pauses."""
        self._check(name)
        return self._progress("/api/pull", managing.write_transfer(name, insecure=insecure))

    def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Have it send a model to a registry."""
        self._check(name)
        return self._progress("/api/push", managing.write_transfer(name, insecure=insecure))

    def create(self, name: str, recipe: Recipe) -> AsyncGenerator[Progress, None]:
        """Have it make a model."""
        return self._progress("/api/create", managing.write_create(name, recipe))

    async def copy(self, source: str, destination: str) -> None:
        """Have it give a model a second name."""
        await self._upstream.done(self._upstream.head("POST", "/api/copy"), managing.write_copy(source, destination))

    async def delete(self, name: str) -> None:
        """Have it remove a model."""
        await self._upstream.done(self._upstream.head("DELETE", "/api/delete"), managing.write_transfer(name))

    async def has_blob(self, digest: str) -> bool:
        """Whether it has a blob."""
        return await self._upstream.done(self._upstream.head("HEAD", f"/api/blobs/{digest}"), absent=True)

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes], *, size: int = 0) -> bool:  # noqa: ARG002
        """Send it a blob, as fast as it takes it."""
        return await self._upstream.upload(self._upstream.head("POST", f"/api/blobs/{digest}"), pieces) == 201

    def _check(self, text: str) -> None:
        """Raises InvalidRequest for a name that leads to no listed host."""
        name = names.parse(text)
        try:
            link = read_link(f"https://{name.host if name is not None else ''}/")
        except ValueError:
            raise InvalidRequest("invalid model name", param="model") from None
        self._hosts.check(link)

    async def _progress(self, path: str, body: bytes) -> AsyncGenerator[Progress, None]:
        reader = managing.ProgressReader()
        told = self._upstream.lines(self._upstream.head("POST", path), body)
        try:
            async for data in told:
                for step in reader.feed(data):
                    yield step
                if reader.finished:
                    return
            for step in reader.finish():
                yield step
        finally:
            await told.aclose()
