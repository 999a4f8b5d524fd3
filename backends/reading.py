"""An answer's events on their way out of a backend, read once more: calls in text, thoughts in text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from canonical.events import Event


class Reads(Protocol):
    """Something that makes an answer's events out of those of a backend."""

    def feed(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events that ``events`` settle."""


async def reading(
    stream: AsyncGenerator[Sequence[Event], None], *readers: Reads
) -> AsyncGenerator[Sequence[Event], None]:
    """The answer that ``stream`` tells, as ``readers`` understand it, one after the other; closing it closes the stream."""
    async with aclosing(stream):
        async for events in stream:
            for reader in readers:
                events = reader.feed(events)
            if events:
                yield events
