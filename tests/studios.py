"""What the tests of the LM Studio backend have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from backends.base import Generates
from backends.lmstudio import LMStudioBackend
from canonical.events import Check, Completion, Event, fold
from canonical.messages import Message, Text
from canonical.progress import Progress
from canonical.requests import AS_CONFIGURED, Generate, LoadOptions
from tests.lmstudio.studio import Studio

TOKEN = "sk-lm-abcdefgh:ABCDEFGHIJ0123456789"


def backend(studio: Studio, **settings: Any) -> LMStudioBackend:
    values = {"url": studio.url, **settings}
    return LMStudioBackend("studio", msgspec.convert(values, LMStudioBackend.Settings))


def ask(text: str = "hi", **more: Any) -> Generate:
    return Generate(model="pip", messages=(Message("user", (Text(text),)),), **more)


async def answer(model: Any, request: Generate | None = None) -> Completion:
    """One answer, checked."""
    assert isinstance(model, Generates)
    check, events = Check(), list[Event]()
    async for batch in model.generate(request or ask()):
        for event in batch:
            check.feed(event)
        events.extend(batch)
    check.finish()
    return fold(events)


async def opened(
    home: LMStudioBackend, name: str = "pip", options: LoadOptions = AS_CONFIGURED, told: list[Progress] | None = None
) -> Any:
    return await home.open(name, options, (told if told is not None else []).append)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))
