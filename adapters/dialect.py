"""What every dialect offers the gateway: a request read off the wire, and ways to word its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from msgspec import Struct

from canonical.errors import GatewayError
from canonical.events import Completion, Event
from canonical.requests import Embed, Embeddings, Generate, Load, Ranking, Rerank


class Stamp(Struct, frozen=True):
    """What an answer needs from outside, so that the same input always gives the same bytes."""

    id: str
    """Unique, letters and digits; a dialect puts its own prefix before it."""
    clock: Callable[[], int]
    """Epoch nanoseconds, now."""


class Encoder(Protocol):
    """Canonical events -> one stream's bytes. One object a stream; ``choice`` is the index of the request in the ask."""

    media_type: ClassVar[str]

    def feed(self, event: Event, choice: int = 0) -> bytes:
        """The frames of one event; may be empty."""

    def finish(self) -> bytes:
        """The closing frames, once every choice finished well."""

    def fail(self, error: GatewayError) -> bytes:
        """The in-band error frame; nothing follows it."""


class Reader(Protocol):
    """One upstream stream's bytes -> canonical events, in any slices."""

    failure: GatewayError | None
    """What ended the stream behind the events that the last ``feed`` gave: those are the client's all the same."""

    @property
    def ending(self) -> bool:
        """Whether the finish reason has come, and at most the usage may follow."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes.

        Raises:
            GatewayError: at once with what is not this format or tells of a failure; behind events it is ``failure``.
        """

    def finish(self) -> list[Event]:
        """What is left once the upstream has closed. A stream without its finish reason yields no Finished."""


class Ask(Struct, frozen=True):
    """A request for generation, read off the wire, and how to word its answer."""

    requests: tuple[Generate, ...]
    """One a choice: OpenAI's ``n`` and prompt lists make several."""
    stream: bool
    encoder: Callable[[Stamp], Encoder]
    whole: Callable[[Sequence[Completion], Stamp], bytes]
    """The answer not streamed, as a JSON body."""


class EmbedAsk(Struct, frozen=True):
    """A request for embeddings, and how to word its answer."""

    request: Embed
    whole: Callable[[Embeddings], bytes]


class RerankAsk(Struct, frozen=True):
    """A request to rank documents, and how to word the answer."""

    request: Rerank
    whole: Callable[[Ranking, Stamp], bytes]


class CountAsk(Struct, frozen=True):
    """A request to count the prompt's tokens, and how to word the answer."""

    request: Generate
    whole: Callable[[int], bytes]


class LoadAsk(Struct, frozen=True):
    """A request that only loads or unloads a model (Ollama's empty prompt)."""

    request: Load
    whole: Callable[[Stamp], bytes]
