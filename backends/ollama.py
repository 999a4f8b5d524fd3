"""Another Ollama server, or whatever speaks its native API, over HTTP.

The official package is not needed for it: it would bring httpx's pool back to the data path, and it splits lines at
characters that are legal inside JSON.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path

import msgspec
from msgspec import structs

from adapters.ollama import call
from backends.abilities import known_models
from backends.base import Tell, new_call_id, tell_nobody
from backends.fetching.hosts import HUGGING_FACE, OLLAMA, Hosts
from backends.forwarding import Forwarding
from backends.honours import TABLE
from backends.reading import Reads, reading
from backends.remote import Handle, RemoteBackend
from backends.transport import Head
from backends.upstream import Exchange, RemoteSettings, Upstream
from canonical.events import Event
from canonical.forced import force
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo, spelling
from canonical.prompted_calls import CallReader, FirstCall
from canonical.prompted_tools import callable_names, shown
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Embed, Embeddings, Generate, LoadOptions

# Servers other than Ollama itself call the lines JSON; a failure before the first line is JSON everywhere, and one
# JSON object is a line as well.
STREAMS = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"})
HONOURS = Honours(TABLE["ollama"], dialect="ollama")


class OllamaSettings(RemoteSettings, frozen=True):
    """``url`` is what ``OLLAMA_HOST`` would be: with or without ``/api``."""

    pull_hosts: tuple[str, ...] = (OLLAMA, *HUGGING_FACE)
    """Where clients may have it fetch models from, and send them to; ``*``: anywhere."""

    def __post_init__(self) -> None:
        """As for every backend behind HTTP; and this dialect has no word for a link."""
        super().__post_init__()
        Hosts(self.pull_hosts)
        if self.image_links:
            raise ValueError("Ollama's API has no links to images: leave image_links out, and the gateway follows them")


class OllamaBackend(Forwarding, RemoteBackend):
    """The models of one server, which can be told to fetch and make others."""

    Settings = OllamaSettings
    dialect = "ollama"
    relayed = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
    streams = STREAMS

    def __init__(self, name: str, settings: OllamaSettings, base: Path = Path()) -> None:
        """``base`` is the folder from which relative paths in settings count. Raises ValueError."""
        upstream = Upstream(name, settings, base, prefix=base_path, read_error=call.read_error, called="Ollama")
        probed = known_models(settings.abilities, base, HONOURS)
        super().__init__(upstream, settings.models, listing="/api/tags", read_list=call.read_tags, probed=probed)
        self._hosts = Hosts(settings.pull_hosts)
        self._ps = upstream.head("GET", "/api/ps")
        self._show = upstream.head("POST", "/api/show")
        self._chat = upstream.head("POST", "/api/chat")
        self._generate = upstream.head("POST", "/api/generate")
        self._embed = upstream.head("POST", "/api/embed")

    async def details(self, name: str) -> ModelDetails:
        """What the server shows of the model. Raises ModelNotFound, BackendError."""
        return await self._shown(name, verbose=False)

    async def all_details(self, name: str) -> ModelDetails:
        """The same with the long lists in it."""
        return await self._shown(name, verbose=True)

    async def _shown(self, name: str, *, verbose: bool) -> ModelDetails:
        body = msgspec.json.encode({"model": name, "verbose": verbose})
        details = call.read_show(await self._upstream.control(self._show, body), name)
        return structs.replace(details, info=self._probed.info(details.info))

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> OllamaModel:  # noqa: ARG002
        """A handle; the server loads the model when a request comes."""
        model = OllamaModel(
            self._upstream, self._catalog.info(name), chat=self._chat, generate=self._generate, embed=self._embed
        )
        return self.corrected(model)

    async def others(self) -> list[LoadedModel]:
        """What the server has in its memory, whoever asked for it. Raises BackendError."""
        found = call.read_running(await self._upstream.control(self._ps))
        name = self._upstream.name
        return [
            structs.replace(row, info=structs.replace(self._known(row.info), id=row.info.id, backend=name))
            for row in found
        ]

    def _known(self, seen: ModelInfo) -> ModelInfo:
        """What its catalog says of a model beside what its list of running ones does."""
        info = self._catalog.info(seen.id)
        return info if info.digest == seen.digest else self._probed.info(seen)

    async def free(self, name: str) -> bool:
        """Have the server let go of a model. Raises BackendError."""
        if not any(spelling(row.info.id) == spelling(name) for row in await self.others()):
            return False
        await self.warm(name, 0, AS_CONFIGURED)
        return True

    async def warm(self, name: str, keep_alive: float | None, options: LoadOptions) -> None:
        """Load or unload the model there. A model for vectors alone is loaded by the only route that takes it."""
        vectors = keep_alive != 0 and self._catalog.info(name).capabilities == {Capability.EMBED}
        body = call.write_load(name, keep_alive, options)
        await self._upstream.ask(self._embed if vectors else self._generate, body)


class OllamaModel(Handle):
    """One model of the server."""

    def __init__(self, upstream: Upstream, info: ModelInfo, *, chat: Head, generate: Head, embed: Head) -> None:
        super().__init__(info, HONOURS)
        self._upstream = upstream
        self._chat = chat
        self._generate = generate
        self._embed = embed

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Go on with the conversation, or with the prompt as it stands."""
        name = self.info.id
        reader: Reads | None = None
        if request.prompt is None:
            request, reader = _asked(request)
            body = call.write_chat(request, name)
            whole = partial(call.read_chat, new_id=new_call_id)
            exchange = Exchange(self._chat, body, partial(call.ChatReader, new_call_id), whole, STREAMS)
        else:
            body = call.write_generate(request, name)
            whole = partial(call.read_generate, new_id=new_call_id)
            exchange = Exchange(self._generate, body, partial(call.GenerateReader, new_call_id), whole, STREAMS)
        stream = self._upstream.generate(exchange, stream=request.stream)
        return stream if reader is None else reading(stream, reader)

    async def embed(self, request: Embed) -> Embeddings:
        """One vector per input."""
        body = call.write_embed(request, self.info.id)
        return call.read_embed(await self._upstream.ask(self._embed, body))


def _asked(request: Generate) -> tuple[Generate, Reads | None]:
    """The request without what Ollama has no word for, and what reads its answer then.

    A forced call is held by ``format``. The tools are told in the prompt then: beside them Ollama looks for calls in what
    the format makes, in its own way for each template, or refuses both together.
    """
    single = request.parallel_tool_calls is False
    forced = force(request)
    if forced is not None:
        return shown(request, forced), CallReader(callable_names(request), new_call_id, single=single, forced=True)
    return request, FirstCall() if single and request.tools else None


def base_path(path: str) -> str:
    """What stands before ``/api``."""
    return path.removesuffix("/api")
