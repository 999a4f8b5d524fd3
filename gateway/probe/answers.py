"""Answers of one model, each in bounded time and size, and what becomes of a question that got none.

A refusal is a finding. Silence, garbage and the server's own errors are none: they are asked about once more, and three
of them in a row end everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Literal

from msgspec import Struct

from backends.abilities import Found
from backends.base import Generates, Model
from canonical.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from canonical.events import Check, Completion, Event, Started, TextDelta, fold
from canonical.requests import Generate
from gateway.probe import inline

STRIKES = 3
NOTE_LIMIT = 300
"""Characters of a server's words that are kept."""
TEXT_LIMIT = 200_000
"""Characters of an answer: every question allows far fewer."""
PAUSE = 10.0
"""Seconds that a busy server is given, at most."""

Clock = Callable[[], float]
Ask = Callable[[], Awaitable[Found]]


class Patience(Struct, frozen=True, kw_only=True):
    """Seconds."""

    first: float = 300.0
    """For the first answer: the server may have to load the model."""
    ask: float = 60.0
    total: float = 1800.0
    """For all questions to all models."""


class GaveUp(Exception):
    """The model does not answer any more; the message says what came instead."""


class InTime:
    """A time limit whose end is the backend's failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, where)
        except TimeoutError:
            raise BackendTimeout(f"no answer within {self._seconds:.3g} s") from None


class Answers:
    """One model's. ``until`` is when, on ``clock``, the time for everything is over."""

    def __init__(self, model: Model, *, patience: Patience, until: float, clock: Clock) -> None:
        self._model = model
        self._until = until
        self._clock = clock
        self.patience = patience
        self.plain: Generate | None = None
        """What it was seen to answer, or to refuse: it still does, if it is alive."""
        self.inline: bool | Literal["opened"] = False
        """Whether thoughts stood in a text. They are told apart before anybody judges the answer."""
        self._strikes = 0

    async def whole(self, request: Generate, seconds: float = 0) -> Completion:
        """A whole answer. ``seconds``: 0 for the usual patience. Raises GatewayError, GaveUp."""
        answer = fold(await self.events(request, seconds))
        if inline.thinks_inline(answer):
            self.inline = inline.begins_thought(answer) or self.inline or "opened"
            return inline.apart(answer)
        return answer

    async def events(self, request: Generate, seconds: float = 0) -> list[Event]:
        """The checked events of an answer. Raises GatewayError, GaveUp."""
        assert isinstance(self._model, Generates)
        events: list[Event] = []
        check = Check()
        size = 0
        async with self.in_time(seconds), aclosing(self._model.generate(request)) as stream:
            async for batch in stream:
                for event in batch:
                    check.feed(event)
                    size += len(event.text) if isinstance(event, TextDelta) else 1
                events.extend(batch)
                if size > TEXT_LIMIT:
                    raise BackendError("the answer goes on for ever, whatever limit is asked for")
        check.finish()
        return events

    async def begin(self, request: Generate) -> None:
        """Wait for the first word of an answer, and leave."""
        assert isinstance(self._model, Generates)
        async with self.in_time(), aclosing(self._model.generate(request)) as stream:
            async for batch in stream:
                if any(not isinstance(event, Started) for event in batch):
                    return

    def in_time(self, seconds: float = 0) -> InTime:
        """A limit for one question, within that for everything. Raises GaveUp when this is over."""
        left = self._until - self._clock()
        if left <= 0:
            raise GaveUp(f"the {self.patience.total:g} s for everything are over")
        return InTime(min(seconds or self.patience.ask, left))

    async def found(self, ask: Ask, *, again: bool = True) -> Found:
        """What ``ask`` finds, or what its failure means. Raises GaveUp."""
        try:
            found = await ask()
        except (BackendTimeout, BackendUnavailable) as error:
            return self._strike(error)
        except Busy as error:
            if not again:
                return self._strike(error)
            async with self.in_time(PAUSE + 1):
                await asyncio.sleep(min(1.0 if error.retry_after is None else error.retry_after, PAUSE))
            return await self.found(ask, again=False)
        except (InvalidRequest, ModelNotFound) as error:
            self._strikes = 0
            return Found("refused", words_of(error))
        except BackendError as error:
            if error.code == "backend_credentials":
                raise GaveUp(words_of(error)) from None
            return await self.found(ask, again=False) if again else await self._doubtful(error)
        self._strikes = 0
        return found

    async def _doubtful(self, error: BackendError) -> Found:
        """Servers refuse with any status. If the model still answers what it answered before, this was a refusal.

        So it is if another question was refused and still is: a server without chats need not know all other paths.
        """
        if self.plain is not None:
            try:
                await self.whole(self.plain)
            except (InvalidRequest, ModelNotFound):
                pass
            except GatewayError:
                return self._strike(error)
            self._strikes = 0
            return Found("refused", words_of(error))
        return self._strike(error)

    def _strike(self, error: GatewayError) -> Found:
        self._strikes += 1
        if self._strikes >= STRIKES:
            raise GaveUp(words_of(error))
        return Found("unknown", words_of(error))


def words_of(error: GatewayError) -> str:
    """What an error says, on one line and not for ever."""
    words = " ".join(error.message.split())
    return words if len(words) <= NOTE_LIMIT else words[: NOTE_LIMIT - 1] + "…"
