"""A backend that manages models in memory: real enough for wires and routes, and every move of it can be held up."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from adapters.ollama.modelfile import write_parameters
from adapters.ollama.names import key, parse, short
from backends.base import Section, Tell, tell_nobody
from canonical.digests import digest_of
from canonical.errors import BackendError, Conflict, InvalidRequest, ModelNotFound, StorageFailed
from canonical.models import Capability, ModelDetails, ModelInfo
from canonical.progress import Progress
from canonical.recipe import Recipe
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.settings import ModelEntry
from tests.asgi import House
from tests.houses import HELLO, Home, Talks, tells
from tests.virtual_time import run

MOMENT = 1_787_303_655_500_000_000
FAR = b"the weights of a model that is far away"
FAR_DIGEST = digest_of(FAR)


class Shelf:
    """Models by their short name. ``far`` is what its registry has; ``file`` is a file of a folder, which it cannot remove."""

    Settings = Section

    def __init__(self, name: str = "shelf", settings: Section | None = None, base: Path = Path()) -> None:
        self.rows: dict[str, ModelInfo] = {}
        self.recipes: dict[str, Recipe] = {}
        self.blobs: dict[str, bytes] = {}
        self.far = {"far": FAR, "further": FAR}
        self.pushed: list[str] = []
        self.open_models: dict[str, Talks] = {}
        self.gate = asyncio.Event()
        """Pulls go on only while it is set."""
        self.gate.set()
        self.pulls = self.stopped = self.received = 0
        self.story = tells(HELLO)
        self.put("have", b"weights")
        self.put("file", b"a file")
        self.put("own", b"of config.yaml")

    def put(self, name: str, weights: bytes, recipe: Recipe | None = None) -> None:
        digest = hashlib.sha256(weights + repr(recipe).encode()).hexdigest()
        able = frozenset({Capability.CHAT, Capability.COMPLETE})
        id = short(name)
        self.rows[key(name)] = ModelInfo(
            id=id, size=len(weights), digest=digest, modified=MOMENT, capabilities=able, format="gguf", family="llama"
        )
        self.recipes[key(name)] = recipe or Recipe()

    async def models(self) -> list[ModelInfo]:
        return list(self.rows.values())

    def _row(self, name: str) -> ModelInfo:
        if key(name) not in self.rows:
            raise ModelNotFound(f"model {name!r} not found", param="model")
        return self.rows[key(name)]

    async def details(self, name: str) -> ModelDetails:
        row, recipe = self._row(name), self.recipes[key(name)]
        return ModelDetails(
            info=row,
            template=recipe.template or "",
            system=recipe.system or "",
            license="\n".join(recipe.licenses or ()),
            parameters=write_parameters(recipe.parameters),
            messages=recipe.messages or (),
            source=recipe.source,
            requires=recipe.requires,
        )

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Talks:
        model = Talks(self._row(name), self.story, 1)
        self.open_models[key(name)] = model
        return model

    async def close(self) -> None:
        pass

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        self.pulls += 1
        try:
            if parse(name) is None:
                raise InvalidRequest("invalid model name", param="model")
            yield Progress(status="pulling manifest")
            weights = self.far.get(key(name).removesuffix(":latest"))
            if weights is None:
                raise ModelNotFound("pull model manifest: file does not exist", param="model")
            digest = digest_of(weights)
            for done in range(0, len(weights) + 1, len(weights) // 3):
                await self.gate.wait()
                status = f"pulling {digest[7:19]}"
                yield Progress(status=status, digest=digest, total=len(weights), completed=done)
            if weights == b"broken":
                raise BackendError("max retries exceeded: EOF")
            yield Progress(status="verifying sha256 digest")
            yield Progress(status="writing manifest")
            self.put(name, weights)
        except (GeneratorExit, asyncio.CancelledError):
            self.stopped += 1
            raise

    async def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        yield Progress(status="retrieving manifest")
        digest = self._row(name).digest
        yield Progress(status=f"pushing {digest[:12]}", digest=f"sha256:{digest}", total=5, completed=5)
        yield Progress(status="pushing manifest")
        self.pushed.append(name)

    async def create(self, name: str, recipe: Recipe) -> AsyncGenerator[Progress, None]:
        if parse(name) is None:
            raise InvalidRequest("invalid model name", param="model")
        for digest in recipe.files.values():
            if digest not in self.blobs:
                raise InvalidRequest(f"blob {digest} is not there", param="files")
        if recipe.source:
            self._row(recipe.source)
        yield Progress(status="parsing GGUF")
        await self.gate.wait()
        yield Progress(status="writing manifest")
        self.put(name, b"made", recipe)

    async def copy(self, source: str, destination: str) -> None:
        self.rows[key(destination)] = structs.replace(self._row(source), id=short(destination))
        self.recipes[key(destination)] = self.recipes[key(source)]

    async def delete(self, name: str) -> None:
        self._row(name)
        if key(name) == "file:latest":
            raise Conflict("model 'file' is a file of the models folder: remove it there")
        del self.rows[key(name)]

    async def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes], *, size: int = 0) -> bool:
        data = bytearray()
        async for piece in pieces:
            await self.gate.wait()
            data += piece
            self.received = len(data)
            if len(data) > 64 * 1024 * 1024:
                raise StorageFailed("no space left")
        got = digest_of(data)
        if got != digest:
            raise InvalidRequest(f'digest mismatch, expected "{digest}", got "{got}"', param="digest")
        self.blobs[digest] = bytes(data)
        return True


CONFIGURED = (
    ModelEntry(id="pip", backend="home", name="m", aliases=("pop",)),
    ModelEntry(id="mine", backend="shelf", name="own:latest"),
    ModelEntry(id="later", backend="shelf", name="further"),
)


def house(shelf: Shelf, **more: Any) -> House:
    """A gateway over the shelf, with models of config.yaml beside."""
    return House(shelf=shelf, home=Home(tells(HELLO)), models=CONFIGURED, **more)


def at_a_shelf(story: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a story of a gateway and its shelf a test. The gateway is closed behind it; what else it takes, pytest gives."""

    @functools.wraps(story)
    def test(**given: Any) -> None:
        async def whole() -> None:
            shelf = Shelf()
            a = house(shelf)
            await story(a, shelf, **given)
            await a.close()

        run(whole())

    signature = inspect.signature(story)
    given = list(signature.parameters.values())[2:]
    test.__signature__ = signature.replace(parameters=given)  # type: ignore[attr-defined]
    return test


def ndjson(call: Any) -> list[Any]:
    """The lines of a stream that began well."""
    assert call.status == 200
    assert call.headers[b"content-type"] == b"application/x-ndjson"
    return call.lines()
