"""Sessions: the model that each has chosen, which is kept, and what is being generated for it, which it can stop.

A session belongs to the key it is used with: under another key the same id is another session. One without a model is
nothing but its id. What runs is known to the gateway that runs it alone, and stops there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct

from canonical.errors import GatewayError
from canonical.events import Event, Finished, Started
from gateway.store.sessions import Session
from gateway.store.sessions import Sessions as Kept

ID_FORM = r"[A-Za-z0-9._~:@+={}-]{1,128}"
"""Also what clients make themselves: GUIDs in braces, addresses, base64url."""
_ID = re.compile(ID_FORM)
PATIENCE = 10.0
"""Seconds that a generation may take to end once it is stopped; engines look for it at each token."""

Batches = AsyncGenerator[Sequence[Event], None]
T = TypeVar("T")


def new_id() -> str:
    """An id that nobody can guess: who knows it can use its session."""
    return secrets.token_hex(16)


def is_id(text: str) -> bool:
    """Whether a session may be called so."""
    return _ID.fullmatch(text) is not None


class SessionId(Struct, frozen=True):
    """Which session: of which key, and how its client calls it."""

    owner: str
    id: str


class Sessions:
    """All of one gateway's."""

    def __init__(self, kept: Kept, *, system: str = "") -> None:
        self.system = system
        """Instructions for chats that bring none."""
        self._kept = kept
        self._running: dict[SessionId, set[Generation]] = {}

    async def model(self, session: SessionId) -> str:
        """The session's current model; empty: it has none. Raises StorageFailed."""
        found = await self._kept.get(session.id, owner=session.owner)
        return found.model if found is not None else ""

    async def choose(self, session: SessionId, model: str) -> None:
        """Make it the current one; back when that outlives the process. Raises StorageFailed."""
        if model != await self.model(session):
            await self._kept.put(Session(id=session.id, owner=session.owner, model=model))

    @contextlib.contextmanager
    def generating(self, session: SessionId) -> Iterator[Generation]:
        """A generation of the session, which can be stopped for as long as the context lasts."""
        generation = Generation()
        running = self._running.setdefault(session, set())
        running.add(generation)
        try:
            yield generation
        finally:
            generation.over()
            running.discard(generation)
            if not running and self._running.get(session) is running:
                del self._running[session]

    async def stop(self, session: SessionId) -> bool:
        """Stop all that runs for the session; back when it has ended. False: nothing ran.

        Raises:
            GatewayError: something does not end.
        """
        running = list(self._running.get(session, ()))
        for generation in running:
            generation.stop()
        if running:
            ends = [asyncio.ensure_future(generation.ended.wait()) for generation in running]
            try:
                _, late = await asyncio.wait(ends, timeout=PATIENCE)
            finally:
                for end in ends:
                    end.cancel()
            if late:
                raise GatewayError("the generation does not stop")
        return bool(running)


class Generation:
    """One answer in the making; with several choices, one after the other.

    It is made in a task of its own, a batch ahead of whoever sends it at most, so that it ends at once when it is stopped:
    also while it waits for a model or for its turn, and while its client reads slowly.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.ended = asyncio.Event()
        """Set when it is stopped or over, and nothing of it runs any more."""
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End it: what there is becomes the answer."""
        self.stopped = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
        else:
            self.ended.set()

    def over(self) -> None:
        """Nobody asks for more of it."""
        self.ended.set()

    async def read(self, batches: Batches) -> Batches:
        """The events of one choice. One that is stopped ends well, as cancelled."""
        begun = finished = False
        async with contextlib.aclosing(self.each(batches)) as events:
            async for batch in events:
                begun, finished = True, type(batch[-1]) is Finished
                yield batch
        if not finished and self.stopped:
            yield (Finished("cancelled"),) if begun else (Started(), Finished("cancelled"))

    async def each(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """What ``items`` yields, until it is stopped; back then when they are closed."""
        news: asyncio.Queue[T | None] = asyncio.Queue()
        room = asyncio.Semaphore()

        async def make() -> None:
            try:
                async for item in items:
                    await room.acquire()
                    news.put_nowait(item)
            finally:
                await items.aclose()

        def made(task: asyncio.Task[None]) -> None:
            news.put_nowait(None)
            if self.stopped:
                self.ended.set()
            if not task.cancelled():
                task.exception()  # whoever reads to the end gets it

        if not self.stopped:
            self._task = task = asyncio.ensure_future(make())
            task.add_done_callback(made)
            try:
                while (item := await news.get()) is not None:
                    room.release()
                    yield item
            finally:
                task.cancel()
                await asyncio.wait((task,))
            if not self.stopped:
                task.result()
