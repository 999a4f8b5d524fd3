"""Any server that speaks OpenAI's API: llama-server, vLLM, LM Studio, a cloud, another dragoman."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from adapters.openai import call
from adapters.openai.painting_call import ALL, Field
from backends.abilities import known_models
from backends.base import Tell, new_call_id, tell_nobody
from backends.honours import TABLE
from backends.openai_painting import Painting
from backends.remote import Handle, RemoteBackend
from backends.transport import Head
from backends.upstream import Exchange, RemoteSettings, Upstream
from canonical.events import Event
from canonical.models import ModelInfo
from canonical.painting import Offer, Paint, Painted, Step
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Embed, Embeddings, Generate, LoadOptions, Ranking, Rerank

STREAMS = frozenset({"text/event-stream"})
HONOURS = Honours(TABLE["openai"], dialect="openai")


class OpenAISettings(RemoteSettings, frozen=True):
    """``url`` is what an SDK calls the base URL: with or without its ``/v1``."""

    max_tokens_field: call.Limit = "max_tokens"
    """How this server wants the limit spelled; reasoning models of clouds know only ``max_completion_tokens``."""
    paints: tuple[str, ...] = ()
    """Its models that make pictures, where its list does not tell; another dragoman's does."""
    paint_fields: dict[Field, str] = msgspec.field(default_factory=lambda: dict(ALL))
    """What it takes beside OpenAI's own words for a picture, and how it calls each; a cloud refuses what it does not know."""


class OpenAIBackend(RemoteBackend):
    """The models of one server."""

    Settings = OpenAISettings
    dialect = "openai"
    relayed = ("/chat/completions", "/completions", "/embeddings")
    streams = STREAMS

    def __init__(self, name: str, settings: OpenAISettings, base: Path = Path()) -> None:
        """``base`` is the folder from which relative paths in settings count. Raises ValueError."""
        upstream = Upstream(name, settings, base, prefix=base_path, read_error=call.read_error)
        probed = known_models(settings.abilities, base, HONOURS)
        super().__init__(upstream, settings.models, listing="/models", read_list=call.read_models, probed=probed)
        self._limit = settings.max_tokens_field
        self._chat = upstream.head("POST", "/chat/completions")
        self._completion = upstream.head("POST", "/completions")
        self._embeddings = upstream.head("POST", "/embeddings")
        self._rerank = upstream.head("POST", "/rerank")
        self._painting = Painting(upstream, settings.paints, settings.paint_fields)

    async def models(self) -> list[ModelInfo]:
        """The configured catalog, or the server's, and those that are said to paint. Raises BackendError."""
        return self._painting.listed(await super().models())

    async def offer(self, name: str) -> Offer:
        """What is known of what can be chosen of a picture there: nothing."""
        return self._painting.offer(name)

    async def prepared(self, name: str, request: Paint) -> Paint:
        """The request as it is, for only the server knows what it takes where nothing is said.

        Raises:
            Unsupported: there is no way to say it to such a server.
        """
        return self._painting.prepared(name, request)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> OpenAIModel:  # noqa: ARG002
        """A handle. The server is not asked: many serve models that they do not list."""
        model = OpenAIModel(
            self._upstream,
            self._painting.marked(self._catalog.info(name)),
            limit=self._limit,
            chat=self._chat,
            completion=self._completion,
            embeddings=self._embeddings,
            rerank=self._rerank,
            painting=self._painting,
        )
        return self.corrected(model)


class OpenAIModel(Handle):
    """One model of the server."""

    def __init__(
        self,
        upstream: Upstream,
        info: ModelInfo,
        *,
        limit: call.Limit,
        chat: Head,
        completion: Head,
        embeddings: Head,
        rerank: Head,
        painting: Painting,
    ) -> None:
        super().__init__(info, HONOURS)
        self._upstream = upstream
        self._limit = limit
        self._chat = chat
        self._completion = completion
        self._embeddings = embeddings
        self._rerank = rerank
        self._painting = painting

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Go on with the conversation, or with the prompt as it stands."""
        name = self.info.id
        if request.prompt is None:
            body = call.write_chat(request, name, limit=self._limit)
            whole = partial(call.read_chat, new_id=new_call_id)
            exchange = Exchange(self._chat, body, partial(call.ChatReader, new_call_id), whole, STREAMS)
        else:
            body = call.write_completion(request, name)
            exchange = Exchange(self._completion, body, call.CompletionReader, call.read_completion, STREAMS)
        return self._upstream.generate(exchange, stream=request.stream)

    async def embed(self, request: Embed) -> Embeddings:
        """One vector per input."""
        body = call.write_embeddings(request, self.info.id)
        return call.read_embeddings(await self._upstream.ask(self._embeddings, body))

    async def rerank(self, request: Rerank) -> Ranking:
        """The server's own scores."""
        body = call.write_rerank(request, self.info.id)
        return call.read_ranking(await self._upstream.ask(self._rerank, body), len(request.documents))

    def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        """The server's pictures, one after the other."""
        return self._painting.painted(self.info.id, request)


def base_path(path: str) -> str:
    """What stands before ``/chat/completions``: ``/v1`` is added unless the path has a version already.

    Gemini's is ``/v1beta/openai``.
    """
    return path if re.search(r"/v\d+[a-z0-9]*(/|$)", path) else path + "/v1"
