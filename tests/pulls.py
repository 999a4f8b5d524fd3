"""Pulls in small: parts of a few KiB, no pauses, and patience of a fifth of a second."""

from __future__ import annotations

import asyncio
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from backends.fetching.fetching import Fetching
from backends.fetching.hosts import Hosts
from backends.fetching.patience import Pace
from backends.fetching.web import PATIENCE
from backends.store import Store
from canonical.progress import Progress
from tests.registry import Site

KIB = 1024
LIMITS = structs.replace(PATIENCE, connect=2.0, first_byte=0.5, idle=0.25)


def weights(size: int = 600 * KIB, seed: int = 1) -> bytes:
    """Bytes that pass for a GGUF file as long as nobody reads further than its first word."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


def gguf(seed: int = 1, size: int = 300 * KIB) -> bytes:
    """A GGUF file that says what it is, with a tensor of noise: enough to be listed, not to be run."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text("general.file_type") + struct.pack("<II", 4, 7)
    tensor = text("w") + struct.pack("<IQIQ", 1, size, 24, 0)  # type 24: bytes
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + pairs + tensor
    return head + bytes(-len(head) % 32) + random.Random(seed).randbytes(size)


@dataclass
class Puller:
    """A store, and pulls into it."""

    folder: Path
    site: Site
    pauses: list[float] = field(default_factory=list)
    connections: int = 3
    extra: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        return Store(self.folder)

    def fetching(self, **pace: int) -> Fetching:
        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            await asyncio.sleep(0.001)

        figures = {"part": 128 * KIB, "block": 32 * KIB, "piece": 8 * KIB, "tries": 3, "reserve": 0}
        return Fetching(
            self.store,
            pace=Pace(**{**figures, "connections": self.connections, **pace}, sleep=sleep),
            hosts=Hosts([*self.site.hosts, "hf.co", "huggingface.co", *self.extra]),
            limits=LIMITS,
        )

    def pull(self, name: str = "acme/tiny", *, insecure: bool = True, **pace: int) -> list[Progress]:
        """Every step of a pull from the site, or of the whole name if it has a host."""

        async def run() -> list[Progress]:
            return [step async for step in self.fetching(**pace).pull(self.named(name), insecure=insecure)]

        return asyncio.run(run())

    def push(self, name: str = "acme/tiny") -> list[Progress]:
        async def run() -> list[Progress]:
            return [step async for step in self.fetching().push(self.named(name), insecure=True)]

        return asyncio.run(run())

    def named(self, name: str) -> str:
        return f"{self.site.host}/{name}" if name.count("/") < 2 else name

    def listed(self) -> set[str]:
        return {model.id for model in self.store.models()}

    def files(self) -> list[str]:
        """What lies among the blobs."""
        blobs = self.folder / "blobs"
        return sorted(path.name for path in blobs.iterdir()) if blobs.is_dir() else []


def overlap(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> int:
    """Bytes that both have."""
    return sum(max(0, min(b, d) - max(a, c)) for a, b in one for c, d in two)
