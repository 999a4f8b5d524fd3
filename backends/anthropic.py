"""Any server of Anthropic's Messages API: the vendor's, LM Studio, llama-server, Ollama, another dragoman."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from adapters.anthropic import call
from backends.abilities import known_models
from backends.base import Tell, tell_nobody
from backends.honours import TABLE
from backends.remote import Handle, RemoteBackend
from backends.transport import Head
from backends.upstream import Exchange, RemoteSettings, Upstream
from canonical.events import Event
from canonical.features import Feature
from canonical.models import ModelInfo
from canonical.report import HONOURED, Honours, approximated
from canonical.requests import AS_CONFIGURED, Generate, LoadOptions

STREAMS = frozenset({"text/event-stream"})
_BUDGET = approximated("a budget of tokens stands for it")
_SIGNED = approximated("only thoughts that their vendor signed go along")
VERSION = "2023-06-01"
"""``anthropic-version``: the one that every server of this dialect knows."""


class AnthropicSettings(RemoteSettings, frozen=True):
    """``url`` is what an SDK calls the base URL: without ``/v1``, or with it. The key goes out as ``x-api-key``."""

    max_tokens: Annotated[int, Meta(ge=1)] = call.MAX_TOKENS
    """For clients that set no limit; this dialect demands one."""
    thinking: call.Style = "adaptive"
    """How this server wants to be told to think: by effort, or (``enabled``) by a budget of tokens, as older models do."""
    unsigned_thoughts: bool = True
    """Whether earlier thoughts that nobody signed go along; the vendor's own servers refuse them."""


class AnthropicBackend(RemoteBackend):
    """The models of one server."""

    Settings = AnthropicSettings
    dialect = "anthropic"
    relayed = ("/messages",)
    streams = STREAMS

    def __init__(self, name: str, settings: AnthropicSettings, base: Path = Path()) -> None:
        """``base`` is the folder from which relative paths in settings count. Raises ValueError."""
        upstream = Upstream(name, settings, base, prefix=base_path, read_error=call.read_error, headers=request_headers)
        probed = known_models(settings.abilities, base, honours_of(settings))
        super().__init__(
            upstream, settings.models, listing="/models?limit=1000", read_list=call.read_models, probed=probed
        )
        self._settings = settings
        self._messages = upstream.head("POST", "/messages")
        self._count = upstream.head("POST", "/messages/count_tokens")

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> AnthropicModel:  # noqa: ARG002
        """A handle. The server is not asked: many serve models that they do not list."""
        model = AnthropicModel(
            self._upstream, self._catalog.info(name), self._settings, messages=self._messages, count=self._count
        )
        return self.corrected(model)


class AnthropicModel(Handle):
    """One model of the server."""

    def __init__(
        self, upstream: Upstream, info: ModelInfo, settings: AnthropicSettings, *, messages: Head, count: Head
    ) -> None:
        super().__init__(info, honours_of(settings))
        self._upstream = upstream
        self._settings = settings
        self._messages = messages
        self._count = count

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Go on with the conversation. Raises Unsupported where this dialect has no words for what is asked."""
        settings = self._settings
        body = call.write_messages(
            request,
            self.info.id,
            max_tokens=settings.max_tokens,
            style=settings.thinking,
            unsigned=settings.unsigned_thoughts,
        )
        whole = partial(call.read_message, new_id=new_id)
        head = self._messages.plus(_headers(request))
        exchange = Exchange(head, body, partial(call.MessageReader, new_id), whole, STREAMS)
        return self._upstream.generate(exchange, stream=request.stream)

    async def count(self, request: Generate) -> int:
        """What the server counts."""
        settings = self._settings
        body = call.write_count(request, self.info.id, style=settings.thinking, unsigned=settings.unsigned_thoughts)
        return call.read_count(await self._upstream.control(self._count.plus(_headers(request)), body))


def _headers(request: Generate) -> tuple[bytes, ...]:
    """What the client of this very dialect said beside its body, of which the new fields travel on too."""
    return request.origin.headers if request.origin.dialect == "anthropic" else ()


@cache
def honours_of(settings: AnthropicSettings) -> Honours:
    """What a server makes of requests that are written with these settings."""
    verdicts = dict(TABLE["anthropic"])
    if settings.thinking == "enabled":
        verdicts.update(dict.fromkeys((Feature.THINK_ON, Feature.THINK_MINIMAL, Feature.THINK_LEVEL), _BUDGET))
        verdicts[Feature.THINK_BUDGET] = HONOURED
    if not settings.unsigned_thoughts:
        verdicts[Feature.THOUGHTS] = _SIGNED
    return Honours(verdicts, dialect="anthropic")


def base_path(path: str) -> str:
    """What stands before ``/messages``."""
    return path if path.endswith("/v1") else path + "/v1"


def request_headers(key: str) -> dict[str, str]:
    """The headers that this dialect wants."""
    return {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}


def new_id() -> str:
    """An id for a tool call that came without one."""
    return f"toolu_{secrets.token_hex(12)}"
