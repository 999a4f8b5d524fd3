"""Brenda's dialect in memory: a gateway that is asked in sessions, and what its answers say."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.settings import Config, Key, Listener
from gateway.store import Session
from tests.asgi import Call, Headers, House
from tests.eventsource import Heard
from tests.houses import Home
from tests.responding import lived

ALONE = Listener(port=1234, dialects=("brenda",))
SHARED = Listener(port=1234, dialects=("openai", "brenda", "anthropic"))
CHAT = "/v1/chat/completions"
ASK = {"model": "a", "messages": [{"role": "user", "content": "Bonjour"}]}
NAMELESS = {"messages": ASK["messages"]}
KEYS = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben", manage=False)))
MINE: Headers = [(b"x-session-id", b"mine")]
YOURS: Headers = [(b"x-session-id", b"yours")]

Story = Callable[[House], Awaitable[None]]


def live(data: Path, story: Story, home: Home | None = None, listener: Listener = ALONE, **more: Any) -> None:
    lived(data, story, home, listener=listener, **more)


def id_of(call: Call) -> bytes:
    (id,) = [value for name, value in call.sent[0]["headers"] if name == b"x-session-id"]
    return id


async def state(a: House, headers: Headers = MINE) -> Any:
    call = await a.ask("GET", "/v1/session", headers=headers)
    assert call.status == 200
    return call.json()


class Unkept:
    """What would be kept, in memory."""

    def __init__(self) -> None:
        self.models: dict[str, Session] = {}

    async def get(self, id: str, *, owner: str) -> Session | None:
        return self.models.get(id)

    async def put(self, session: Session) -> None:
        self.models[session.id] = session


def event_of(one: Heard) -> Any:
    assert one.event == "message"
    return json.loads(one.data)
