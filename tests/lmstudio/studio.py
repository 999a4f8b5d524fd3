"""What the stand-in has: models on its disk, instances in its memory, switches, and a log."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

from msgspec import Struct, field

JIT_TTL = 3600.0
"""Seconds that an instance stays which a request has set off."""
CONTEXT = 4096
"""Tokens of an instance whose load says nothing of it."""

Fault = Literal[
    "",
    "drop",  # the connection breaks after the first piece
    "stall",  # nothing more comes after the first piece
    "close",  # the channel closes without a last word
    "novel",  # a value that no enumeration of the client has
    "partial",  # an error after the first piece
    "old",  # an error as old versions word it
    "text",  # an error that is a bare string
    "binary",  # a frame that is not text
    "uncalled",  # a message of a type that only newer clients know
    "empty",  # an answer that just ends
    "load",  # no load succeeds
    "refuse",  # no client is let in
]
Json = dict[str, Any]


class Row(Struct, frozen=True, kw_only=True):
    """A model on the disk."""

    key: str
    type: Literal["llm", "embedding"] = "llm"
    publisher: str = "acme"
    architecture: str = "llama"
    params: str = "1B"
    quantization: str = "Q4_K_M"
    bits: int = 4
    size: int = 1_400_000
    max_context: int = 8192
    vision: bool = False
    tools: bool = True
    reasoning: tuple[str, ...] = ()
    """The settings that it takes; none: it does not reason."""

    @property
    def path(self) -> str:
        return f"{self.publisher}/{self.key.rpartition('/')[2]}-GGUF/{self.key.rpartition('/')[2]}.gguf"

    @property
    def names(self) -> tuple[str, ...]:
        """By which it can be loaded."""
        return self.key, self.path, f"{self.key}@{self.quantization.lower()}"


class Instance(Struct, kw_only=True):
    """A model in memory."""

    id: str
    row: Row
    reference: str
    context: int
    ttl: float | None
    jit: bool
    used: float
    config: Json


class Told(Exception):
    """An error as the protocol words it."""

    def __init__(self, title: str, **more: Any) -> None:
        super().__init__(title)
        self.wire: Json = {"title": title, "rootTitle": title, **more}


class Entry(Struct, frozen=True):
    """Something that came: ``where`` is a namespace or ``POST /path``."""

    where: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


ROWS = (
    Row(key="pip", params="0.7M", quantization="F16", bits=16, vision=True, reasoning=("off", "on")),
    Row(key="acme/big", params="8B", size=5_000_000_000, max_context=32768, tools=False),
    Row(key="embed", type="embedding", architecture="bert", params="0.3M", size=700_000, max_context=2048),
)
SURFACES = frozenset({"sockets", "/v1", "/api/v0", "/api/v1"})


class Studio:
    """One stand-in's whole state. Tests set its fields; its server reads them."""

    def __init__(self, *rows: Row, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows = {row.key: row for row in rows or ROWS}
        self.instances: dict[str, Instance] = {}
        self.log: list[Entry] = []
        self.fault: Fault = ""
        self.token = ""
        """``sk-lm-XXXXXXXX:YYYYYYYYYYYYYYYYYYYY``; empty: everybody may."""
        self.jit = True
        self.auto_evict = True
        self.load_time = 0.0
        """Seconds that a load takes."""
        self.mind = ""
        """The URL of an OpenAI-compatible server whose models of the same names answer; empty: the script."""
        self.reasoning_in: Literal["reasoning", "reasoning_content", "text"] = "reasoning_content"
        self.surfaces = SURFACES
        """What this version speaks; the rest is an unknown route."""
        self.catalog = {"acme/new": Row(key="acme/new", size=1000)}
        """What can be downloaded."""
        self.download_pieces = 4
        self.downloads: dict[str, Json] = {}
        self.running = 0
        """Generations that go on now."""
        self.pieces = 0
        """Pieces of text that were ever generated."""
        self.clock = clock
        self.port = 0
        self._references = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self) -> str:
        """What the official package takes."""
        return f"127.0.0.1:{self.port}"

    def asked(self, name: str) -> list[Any]:
        """The bodies of what came for an endpoint (``loadModel``) or a route (``POST /v1/embeddings``)."""
        return [entry.body for entry in self.log if entry.where == name or _endpoint(entry.body) == name]

    def downloaded(self, name: str, type: str | None = None) -> Row | None:
        """The row that can be loaded by ``name``."""
        rows = (row for row in self.rows.values() if type in (None, row.type))
        return next((row for row in rows if name in row.names), None)

    def loaded(self, name: str | None, type: str | None = None) -> Instance | None:
        """The instance that answers to ``name``: its own, its model's key or path. None: any."""
        self.expire()
        found = [instance for instance in self.instances.values() if type in (None, instance.row.type)]
        if name is None:
            return found[0] if found else None
        exact = self.instances.get(name)
        if exact is not None and exact in found:
            return exact
        return next((instance for instance in found if name in instance.row.names), None)

    def expire(self) -> None:
        """Let go of what nobody has used for its time."""
        now = self.clock()
        for id, instance in list(self.instances.items()):
            if instance.ttl is not None and now - instance.used >= instance.ttl:
                del self.instances[id]

    def evicted(self) -> list[Instance]:
        """Let go of those that requests had set off, as another such load begins."""
        gone = [one for one in self.instances.values() if one.jit] if self.auto_evict else []
        for instance in gone:
            del self.instances[instance.id]
        return gone

    async def loading(self) -> AsyncIterator[float]:
        """A load's progress, at least from 0 to 1."""
        steps = max(4, int(self.load_time / 0.02))
        for step in range(steps + 1):
            if self.fault == "load" and step > 1:
                raise Told("Failed to load the model", cause="Not enough memory")
            yield step / steps
            await asyncio.sleep(self.load_time / steps)

    def keep(
        self, row: Row, *, id: str = "", context: int = CONTEXT, ttl: float | None = None, jit: bool = False,
        config: Json | None = None,
    ) -> Instance:  # fmt: skip
        """Put a model into memory. A taken name gets a number: nothing is ever loaded instead of something."""
        base = id or row.key
        names = itertools.chain([base], (f"{base}:{number}" for number in itertools.count(2)))
        name = next(name for name in names if name not in self.instances)
        reference = f"{next(self._references):024x}"
        instance = Instance(
            id=name, row=row, reference=reference, context=context, ttl=ttl, jit=jit, used=self.clock(),
            config=config or {},
        )  # fmt: skip
        self.instances[name] = instance
        return instance

    def use(self, instance: Instance) -> None:
        """Start its idle time anew."""
        instance.used = self.clock()


def _endpoint(body: Any) -> str:
    return str(body.get("endpoint", "")) if isinstance(body, dict) else ""
