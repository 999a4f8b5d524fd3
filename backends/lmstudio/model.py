"""One model of an LM Studio: its answers come through OpenAI's routes, and its instance is looked after."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from adapters.lmstudio import call
from adapters.openai.answers import ChatReader, CompletionReader, read_chat, read_completion
from adapters.openai.call import read_embeddings
from backends.base import new_call_id
from backends.honours import loaded_so
from backends.lmstudio.residence import Hold, Residence
from backends.reading import reading
from backends.remote import Handle
from backends.transport import Head
from backends.upstream import Exchange, Upstream
from canonical.errors import GatewayError
from canonical.events import Event
from canonical.models import LoadedModel, ModelInfo
from canonical.prompted_calls import FirstCall
from canonical.report import Honours
from canonical.requests import Embed, Embeddings, Generate

STREAMS = frozenset({"text/event-stream"})
T = TypeVar("T")


class LMStudioModel(Handle):
    """A model, with the instance that it holds; without one, LM Studio loads it when a request comes."""

    def __init__(
        self,
        upstream: Upstream,
        info: ModelInfo,
        honours: Honours,
        *,
        chat: Head,
        completion: Head,
        embeddings: Head,
        residence: Residence,
        hold: Hold | None,
        ttl: int | None,
    ) -> None:
        super().__init__(info, honours)
        self._upstream = upstream
        self._chat, self._completion, self._embeddings = chat, completion, embeddings
        self._residence, self._hold, self._ttl = residence, hold, ttl
        self._tell_load()

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Go on with the conversation, or with the prompt as it stands."""
        exchange: Callable[[], Exchange] = partial(self._exchange, request)
        exchange()  # what cannot be said is refused before anything happens
        stream = self._answer(exchange, stream=request.stream)
        if request.parallel_tool_calls is False and request.tools:
            return reading(stream, FirstCall())
        return stream

    async def embed(self, request: Embed) -> Embeddings:
        """One vector per input."""

        async def ask() -> bytes:
            body = call.write_embeddings(request, self._name, self._ttl)
            return await self._upstream.ask(self._embeddings, body)

        return call.cut(read_embeddings(await self._there(ask)), request.dimensions)

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        hold = self._hold
        if hold is None:
            return LoadedModel(info=self.info, size=self.info.size)
        absent = self._residence.misses(hold)
        return LoadedModel(info=self.info, size=self.info.size, context_length=hold.context, absent=absent)

    async def close(self) -> None:
        """Unload it, if it was loaded for us and nobody else here holds it."""
        if self._hold is not None:
            hold, self._hold = self._hold, None
            await self._residence.leave(hold)

    @property
    def _name(self) -> str:
        return self.info.id if self._hold is None else self._hold.id

    def _exchange(self, request: Generate) -> Exchange:
        if request.prompt is None:
            body = call.write_chat(request, self._name, self._ttl)
            whole = partial(read_chat, new_id=new_call_id)
            return Exchange(self._chat, body, partial(ChatReader, new_call_id), whole, STREAMS)
        body = call.write_completion(request, self._name, self._ttl)
        return Exchange(self._completion, body, CompletionReader, read_completion, STREAMS)

    async def _answer(self, exchange: Callable[[], Exchange], *, stream: bool) -> AsyncGenerator[Sequence[Event], None]:
        """The answer. Where the instance was found to have gone before a word, it is loaded and asked again, once."""
        await self._check()
        begun = False
        try:
            async with aclosing(self._upstream.generate(exchange(), stream=stream)) as events:
                async for batch in events:
                    begun = True
                    yield batch
        except GatewayError as error:
            if begun or not await self._renewed(error):
                raise
        else:
            return
        async with aclosing(self._upstream.generate(exchange(), stream=stream)) as events:
            async for batch in events:
                yield batch

    async def _there(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The same for an answer that comes whole."""
        await self._check()
        try:
            return await ask()
        except GatewayError as error:
            if not await self._renewed(error):
                raise
        return await ask()

    async def _check(self) -> None:
        if self._hold is not None:
            await self._residence.check(self._hold)
            self._tell_load()

    async def _renewed(self, error: GatewayError) -> bool:
        """Whether ``error`` means that the instance had gone, and it is back."""
        if self._hold is None or not call.gone(error):
            return False
        renewed = await self._residence.renew(self._hold)
        self._tell_load()
        return renewed

    def _tell_load(self) -> None:
        if self._hold is not None:
            load = self._residence.load_of(self._hold)
            if load != self.honours.load:
                self.honours = loaded_so(self.honours, load)
