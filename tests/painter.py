"""A backend for a gateway in memory that paints echo's stripes, and stops or fails where a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from backends.echo_painting import OFFER, painted_echo, prepared_echo
from canonical.models import Capability
from canonical.painting import Offer, Paint, Painted, Step
from tests.houses import Home, Talks


class Painter(Home):
    """Paints echo's stripes, and at one step waits until it may go on; ``failing``: fails there."""

    def __init__(self, *, at: int = 0, failing: Exception | None = None) -> None:
        super().__init__(abilities=[Capability.PAINT])
        self.at, self.failing = at, failing
        self.going = asyncio.Event()
        self.asked: list[Paint] = []
        self.steps = self.ended = 0
        self.model = self  # type: ignore[assignment]  # nothing of it depends on which is asked

    honours = Talks.honours
    slots = 1

    def loaded(self) -> Any:
        return Talks.loaded(self)  # type: ignore[arg-type]

    async def offer(self, name: str) -> Offer:
        return OFFER

    async def prepared(self, name: str, request: Paint) -> Paint:
        return prepared_echo(request)

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        self.asked.append(request)
        try:
            for event in painted_echo(request):
                if isinstance(event, Step):
                    if event.done == self.at:
                        if self.failing is not None:
                            raise self.failing
                        await self.going.wait()
                    self.steps = event.done
                yield event
        finally:
            self.ended += 1
