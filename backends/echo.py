"""A model that needs nothing and always says the same: it repeats the last thing it was told, word by word.

For tests, and for writing an application before there is a model. It pretends to nothing: a word is a token, tools
and pictures are not among its abilities, and a form of answer that it cannot promise is refused.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Sequence
from hashlib import blake2b
from pathlib import Path

from backends.base import Section, Tell, tell_nobody
from backends.echo_painting import OFFER, painted_echo, prepared_echo
from backends.honours import TABLE
from canonical.errors import InvalidRequest, ModelNotFound, Unsupported
from canonical.events import Event, Finished, Reason, Started, TextDelta, Usage
from canonical.messages import Audio
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo
from canonical.painting import Offer, Paint, Painted, Step
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Embed, Embeddings, Generate, LoadOptions, Ranked, Ranking, Rerank

MODEL = "echo"
DIMENSIONS = 64
DIMENSIONS_LIMIT = 4096

_WORD = re.compile(r"\s*\S+|\s+")


class EchoSettings(Section, frozen=True):
    """There is nothing to set."""


class EchoBackend:
    """One model, ``echo``."""

    Settings = EchoSettings

    def __init__(self, name: str, settings: EchoSettings, base: Path = Path()) -> None:  # noqa: ARG002  every backend's
        self._info = ModelInfo(
            id=MODEL,
            backend=name,
            capabilities=frozenset(
                {Capability.CHAT, Capability.COMPLETE, Capability.EMBED, Capability.PAINT, Capability.RERANK}
            ),
            format="echo",
            family="echo",
            embedding_length=DIMENSIONS,
            owner="dragoman",
        )

    async def models(self) -> list[ModelInfo]:
        """Its one model."""
        return [self._info]

    async def details(self, name: str) -> ModelDetails:
        """The row again. Raises ModelNotFound."""
        self._check(name)
        return ModelDetails(info=self._info)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> EchoModel:  # noqa: ARG002
        """The model. Raises ModelNotFound."""
        self._check(name)
        return EchoModel(self._info)

    async def offer(self, name: str) -> Offer:
        """What can be chosen of a picture. Raises ModelNotFound."""
        self._check(name)
        return OFFER

    async def prepared(self, name: str, request: Paint) -> Paint:
        """The request, complete. Raises ModelNotFound, NotFound."""
        self._check(name)
        return prepared_echo(request)

    async def close(self) -> None:
        """Nothing is held."""

    def _check(self, name: str) -> None:
        if name != MODEL:
            raise ModelNotFound(f"model '{name}' not found", param="model")


class EchoModel:
    """Repeats, and hashes words into vectors."""

    slots = 0
    honours = Honours(TABLE["echo"])

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        """Nothing is held."""

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """The last user message, or the prompt, one word an event, up to ``stop`` and ``max_tokens``.

        Raises:
            Unsupported: JSON or a schema is asked for, there is sound, or the prompt is token ids.
        """
        if request.output is not None:
            raise Unsupported("echo cannot promise a form of its answer", param="response_format")
        if any(isinstance(part, Audio) for message in request.messages for part in message.parts):
            raise Unsupported("echo does not take audio", param="messages")
        if request.prompt is None:
            told = [message.text for message in request.messages if message.role == "user"]
            prompt = sum(counted(message.text) for message in request.messages)
            answer = told[-1] if told else ""
        elif request.prompt.tokens is not None:
            raise Unsupported("echo takes text, not token ids", param="prompt")
        else:
            answer = request.prompt.text
            prompt = len(words(answer))
        answer, reason, found = _cut(answer, request.sampling.stop, request.sampling.max_tokens)
        pieces = words(answer)
        yield [Started(MODEL)]
        for piece in pieces:
            yield [TextDelta(piece)]
            await asyncio.sleep(0)  # a long text must not keep the loop from others
        yield [Finished(reason, Usage(prompt, len(pieces)), stop_sequence=found)]

    async def embed(self, request: Embed) -> Embeddings:
        """Texts that share words get vectors that are near each other.

        Raises:
            InvalidRequest: more dimensions than ``DIMENSIONS_LIMIT``.
            Unsupported: token ids.
        """
        size = DIMENSIONS if request.dimensions is None else request.dimensions
        if not 0 < size <= DIMENSIONS_LIMIT:
            raise InvalidRequest(f"dimensions must be 1 to {DIMENSIONS_LIMIT}", param="dimensions")
        texts = [text for text in request.inputs if isinstance(text, str)]
        if len(texts) < len(request.inputs):
            raise Unsupported("echo takes text, not token ids", param="input")
        return Embeddings(
            model=MODEL,
            vectors=tuple(vector(text, size) for text in texts),
            prompt_tokens=sum(len(words(text)) for text in texts),
        )

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        """Stripes whose colours follow from the request, so that the same one gives the same bytes."""
        for event in painted_echo(request):
            await asyncio.sleep(0)
            yield event

    async def rerank(self, request: Rerank) -> Ranking:
        """A document's score is the share of the query's words that it has."""
        query = set(request.query.casefold().split())
        return Ranking(
            model=MODEL,
            ranked=tuple(
                Ranked(index, len(query & set(document.casefold().split())) / max(len(query), 1))
                for index, document in enumerate(request.documents)
            ),
            prompt_tokens=sum(counted(text) for text in (request.query, *request.documents)),
        )


def words(text: str) -> list[str]:
    """The text in pieces that join to it again, a word each with the space before it."""
    return _WORD.findall(text)


def counted(text: str) -> int:
    """How many pieces that are: long conversations are counted again at each message."""
    return len(text.split()) + text[-1:].isspace()


def vector(text: str, size: int) -> list[float]:
    """A unit-length vector: each word adds or takes 1 at a place that its hash names."""
    values = [0.0] * size
    for word in text.casefold().split():
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        values[int.from_bytes(digest[:7], "little") % size] += 1.0 if digest[7] & 1 else -1.0
    length = math.sqrt(sum(value * value for value in values))
    if not length:
        return [1.0] + [0.0] * (size - 1)
    return [value / length for value in values]


def _cut(text: str, stop: tuple[str, ...], limit: int | None) -> tuple[str, Reason, str | None]:
    end, found = min(
        ((end, word) for word in stop if word and (end := text.find(word)) >= 0), default=(len(text), None)
    )
    text = text[:end]
    pieces = words(text)
    if limit is not None and len(pieces) > max(limit, 0):
        return "".join(pieces[: max(limit, 0)]), "length", None
    return text, "stop", found
