"""What the gateway asks of a backend, and what a loaded model can do.

A backend's module has a ``Settings`` struct (its keys in config.yaml) and a class that takes it. What a model can do
is which of these protocols it has; nobody writes ``raise NotImplementedError``.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from canonical.events import Event
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.painting import Offer, Paint, Painted, Step
from canonical.progress import Progress
from canonical.recipe import Recipe
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Embed, Embeddings, Generate, LoadOptions, Ranking, Rerank
from canonical.seeing import Match, Read, Reading
from canonical.translation import Guess, Translate

TYPES = {
    "anthropic": "backends.anthropic:AnthropicBackend",
    "clip": "backends.clip:ClipBackend",
    "diffusers": "backends.diffusers:DiffusersBackend",
    "echo": "backends.echo:EchoBackend",
    "llama_cpp": "backends.llama_cpp:LlamaCppBackend",
    "lmstudio": "backends.lmstudio:LMStudioBackend",
    "marian": "backends.marian:MarianBackend",
    "ocr": "backends.ocr:OcrBackend",
    "ollama": "backends.ollama:OllamaBackend",
    "openai": "backends.openai:OpenAIBackend",
}
"""Name in config.yaml -> "module:Class"; a name with a colon in the config is taken as such itself."""


Tell = Callable[[Progress], None]
"""Takes how far long work is."""


def tell_nobody(_: Progress) -> None:
    """For work that nobody watches."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of config.yaml: a typo is an error with its path."""


class Model(Protocol):
    """A model that is ready to answer."""

    info: ModelInfo
    honours: Honours
    """What it makes of everything that can be said to it."""
    slots: int
    """Requests it runs at once; 0: as many as come (memory is someone else's)."""

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``; the pool fills in the expiry."""

    async def close(self) -> None:
        """Free its memory. No lease is open."""


@runtime_checkable
class Generates(Protocol):
    """A model that can go on with a conversation or a prompt."""

    def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the answer's events, as many at once as one read gave. Closing the generator stops the generation."""


@runtime_checkable
class Embeds(Protocol):
    """A model that gives vectors."""

    async def embed(self, request: Embed) -> Embeddings:
        """One unit-length vector per input."""


@runtime_checkable
class Reranks(Protocol):
    """A model that tells how well documents answer a query."""

    async def rerank(self, request: Rerank) -> Ranking:
        """A score per document, in any order; the gateway sorts and cuts."""


@runtime_checkable
class Counts(Protocol):
    """A model that can tell exactly how many tokens a prompt has."""

    async def count(self, request: Generate) -> int:
        """The tokens of the request's prompt, template and tools included; nothing is generated."""


@runtime_checkable
class Translates(Protocol):
    """A model that says the same in another language."""

    async def translate(self, request: Translate) -> Sequence[Sequence[str]]:
        """For each text, in their order, the best way of saying it and then others. The pair is one of ``info.pairs``."""


@runtime_checkable
class Detects(Protocol):
    """A model that tells which language a text is in."""

    async def detect(self, text: str) -> Sequence[Guess]:
        """All languages that it knows, the likeliest first; their shares are 1 together."""


@runtime_checkable
class Matches(Protocol):
    """A model that tells how well labels fit a picture."""

    async def match(self, request: Match) -> Sequence[float]:
        """A share for each label, in their order; together they are 1."""


@runtime_checkable
class Reads(Protocol):
    """A model that finds the text in a picture."""

    async def read(self, request: Read) -> Reading:
        """What stands there, in reading order."""


@runtime_checkable
class Paints(Protocol):
    """A model that makes pictures."""

    def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        """Yield each step as it is done, and each picture when it is; ``request`` is complete, as ``prepared`` returned it.

        Closing the generator stops the work within one step, and waits until it has.

        Raises:
            InvalidRequest: an image of the request cannot be decoded.
            OutOfMemory, BackendTimeout, BackendError: it failed.
        """


class Backend(Protocol):
    """A source of models."""

    async def models(self) -> list[ModelInfo]:
        """Its catalog. Raises BackendError when it cannot be reached."""

    async def details(self, name: str) -> ModelDetails:
        """More on one model. Raises ModelNotFound."""

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Model:
        """Load a model; a remote backend only makes its handle.

        ``tell`` learns how far a load is, from the event loop. Cancelling it aborts the load and frees what it took.

        Raises:
            ModelNotFound, BackendError.
        """

    async def close(self) -> None:
        """Let go of connections and workers; models are closed before."""


@runtime_checkable
class Prepares(Protocol):
    """A backend whose models make pictures: it knows what each lets one choose, without loading it."""

    async def offer(self, name: str) -> Offer:
        """What the model lets one choose. Raises ModelNotFound."""

    async def prepared(self, name: str, request: Paint) -> Paint:
        """The request, complete but for its seed: what it leaves open is as the model's preset says.

        Raises:
            ModelNotFound: there is no such model.
            NotFound: there is no such adapter; the words tell the nearest names.
            InvalidRequest: something of it cannot be; it names the field.
        """


@runtime_checkable
class Equips(Protocol):
    """A backend that needs more than the gateway itself does, where its models run."""

    def check_equipped(self) -> None:
        """Raises NotImplementedHere: what it takes is not installed here."""


@runtime_checkable
class TellsAll(Protocol):
    """A backend that knows more of a model than anybody wants to read at first."""

    async def all_details(self, name: str) -> ModelDetails:
        """``details`` with the long lists in it: the vocabulary, the tensors."""


class Need(Struct, frozen=True, kw_only=True):
    """Memory that a model takes, in bytes, estimated upwards."""

    ram: int = 0
    vram: int = 0
    mapped: int = 0
    """How much of ``ram`` are pages of mapped files: the system counts these as free, and still they are needed."""


@runtime_checkable
class Weighs(Protocol):
    """A backend whose models take memory of this machine."""

    async def need(self, name: str, options: LoadOptions) -> Need:
        """What ``open`` of the same would take: weights, context of all slots, working memory. Raises ModelNotFound."""


@runtime_checkable
class Hosts(Protocol):
    """A backend behind which a server has models in its own memory, and can say which."""

    async def others(self) -> list[LoadedModel]:
        """What is loaded there now beside what was opened through here; asked anew each time. Raises BackendError."""


@runtime_checkable
class Frees(Protocol):
    """A backend behind which a server has models in its own memory, and can be told to let go of any, whoever loaded it."""

    async def free(self, name: str) -> bool:
        """Have the server let go of what answers to this name; False: nothing does. Raises BackendError."""


@runtime_checkable
class Warms(Protocol):
    """A backend behind which a server loads models by itself, and can be told to do so, or to free one."""

    async def warm(self, name: str, keep_alive: float | None, options: LoadOptions) -> None:
        """Have the model loaded there; with a ``keep_alive`` of 0, unloaded. Raises ModelNotFound, BackendError."""


@runtime_checkable
class Pulls(Protocol):
    """A backend whose models can be fetched. Names are as clients write them."""

    def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Fetch a model, or what is new of it. Closing the generator stops; the next pull goes on from there.

        ``insecure`` allows a source without TLS. The model is there, whole and checked, when the generator ends.

        Raises:
            ModelNotFound, InvalidRequest (a name that is none), StorageFailed (no room), BackendError (a source failed).
        """


@runtime_checkable
class Manages(Pulls, Protocol):
    """A backend whose models can be fetched, made, copied and removed. Names are as clients write them.

    All raise ModelNotFound, InvalidRequest (a name that is none), StorageFailed (no room), BackendError (a source failed).
    """

    def push(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a model to the registry that its name begins with."""

    def create(self, name: str, recipe: Recipe) -> AsyncGenerator[Progress, None]:
        """Make a model of another one or of blobs."""

    async def copy(self, source: str, destination: str) -> None:
        """Give a model a second name; an existing one of that name is replaced."""

    async def delete(self, name: str) -> None:
        """Remove a model, and the blobs that no other one has."""

    async def has_blob(self, digest: str) -> bool:
        """Whether ``sha256:<64 hex>`` is there."""

    async def put_blob(self, digest: str, pieces: AsyncIterator[bytes], *, size: int = 0) -> bool:
        """Keep a blob under its digest; False where it was there already. ``size``: what is said that it has; 0: nothing is.

        Raises:
            InvalidRequest: it has another digest.
            StorageFailed: there is no room.
        """


@runtime_checkable
class Relays(Protocol):
    """A backend that speaks a client's dialect, so that the bytes of both can pass as they are."""

    dialect: str
    relayed: Collection[str]
    """The paths of that dialect that it answers itself."""

    def relay(self, path: str, request: Generate | Embed, name: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """Send the body of ``request`` as it came, with ``name`` for the model's.

        Yields the content type of the answer and a piece of its bytes, at least once. A stream's pieces end where its
        frames do; any other answer is one piece. Raises as ``generate`` does.
        """


@runtime_checkable
class Isolates(Protocol):
    """A backend that puts a wall around native code where strangers can reach the gateway."""

    def expose(self) -> None:
        """Say that other machines can reach the gateway; called before any model opens."""


def new_call_id() -> str:
    """An id for a call of a tool that came without one."""
    return f"call_{secrets.token_hex(12)}"
