"""What an Ollama server is told to do with its models: pull, push, create, copy, delete and blobs, over its own API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from adapters.ollama import managing
from backends.upstream import Upstream
from canonical.progress import Progress
from canonical.recipe import Recipe


class Forwarding:
    """The part of a backend that passes on what changes which models there are."""

    _upstream: Upstream

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Have it fetch a model. Closing the generator leaves the server alone, which then pauses."""
        return self._progress("/api/pull", managing.write_transfer(name, insecure=insecure))

    def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Have it send a model to a registry."""
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
