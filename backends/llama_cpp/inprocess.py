"""Runs an engine inside the gateway's process: a thread for each running request, none of them the event loop's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from backends import threads
from backends.llama_cpp.engine import Emit, Engine, Kind


class Runner(Protocol):
    """An engine as the event loop sees it, wherever it runs."""

    def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """The chunks of one answer. Closing the generator stops it and waits until it is out."""

    async def embed(self, body: bytes) -> bytes:
        """The answer to an OpenAI embeddings body."""

    async def rerank(self, body: bytes) -> bytes:
        """The answer to the body of ``/v1/rerank``."""

    async def close(self) -> None:
        """Free the memory."""


class InProcess:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._bell = threads.Bell()

    def stream(self, kind: Kind, body: bytes) -> AsyncGenerator[list[bytes], None]:
        """See ``Runner``."""

        def work(emit: Emit) -> None:
            self.engine.stream(kind, body, emit)

        return threads.stream(work, name=f"llama-{kind}", bell=self._bell)

    async def embed(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await threads.call(lambda: self.engine.embed(body), name="llama-embed")

    async def rerank(self, body: bytes) -> bytes:
        """See ``Runner``."""
        return await threads.call(lambda: self.engine.rerank(body), name="llama-rerank")

    async def close(self) -> None:
        """See ``Runner``."""
        await threads.call(self.engine.close, name="llama-close")
