"""Embedding models: texts or their tokens in, unit-length vectors out, over either engine."""

from __future__ import annotations

import math

from msgspec import structs

from adapters.openai.call import read_embeddings, write_embeddings
from backends.llama_cpp.body import TOKEN_LENGTH
from backends.llama_cpp.engine import is_error
from backends.llama_cpp.loaded import Loaded, cut_to_fit, input_error, too_long
from canonical.errors import BackendError, InvalidRequest
from canonical.requests import Embed, Embeddings, Origin

_INPUTS = 64
"""Texts that become vectors in one call of the engine."""


class EmbeddingModel(Loaded):
    """A model that gives vectors."""

    async def embed(self, request: Embed) -> Embeddings:
        """One unit-length vector per input.

        Raises:
            InvalidRequest: no input, one of no tokens or too long, or ``dimensions`` is more than the model has.
            BackendError: the engine failed.
        """
        if not request.inputs or () in request.inputs:
            raise InvalidRequest("input must not be empty", param="input")
        if request.dimensions is not None and request.dimensions < 1:
            raise InvalidRequest("dimensions must be at least 1", param="dimensions")
        width = self.info.embedding_length
        dimensions = request.dimensions or width
        if width and dimensions > width:
            raise InvalidRequest(f"this model's vectors have {width} dimensions", param="dimensions")
        shorten = request.truncate is True or (request.truncate is None and request.origin.dialect == "ollama")
        longest = self._limits.context * TOKEN_LENGTH
        if not shorten and any(len(text) > longest for text in request.inputs):
            raise too_long(f"an input has more than {longest} characters", self._limits.context, param="input")
        # Counting in the engine costs a second per megabyte, and what is cut there may as well be cut here.
        inputs = tuple(
            text[:longest] if isinstance(text, str) or not shorten else text[: self._limits.context]
            for text in request.inputs
        )
        plain = structs.replace(request, inputs=inputs, origin=Origin(), dimensions=None)
        try:
            answer = await self._ask(plain)
        except InvalidRequest as error:
            if not shorten or error.code != "context_length_exceeded":
                raise
            answers = [await self._shortened(plain, text) for text in inputs]
            answer = Embeddings(
                model="",
                vectors=tuple(one.vectors[0] for one in answers),
                prompt_tokens=sum(one.prompt_tokens or 0 for one in answers),
            )
        vectors = tuple(_unit(vector[:dimensions] if dimensions else vector) for vector in answer.vectors)
        return structs.replace(answer, model=self.info.id, vectors=vectors)

    async def _ask(self, request: Embed) -> Embeddings:
        """A few inputs at a time: what the engine has begun cannot be stopped, and the client may leave."""
        vectors: list[list[float]] = []
        tokens = 0
        for start in range(0, len(request.inputs), _INPUTS):
            part = structs.replace(request, inputs=request.inputs[start : start + _INPUTS])
            body = await self.runner.embed(write_embeddings(part, "model"))
            if is_error(body):
                raise input_error(body, self._limits.context, param="input")
            answer = read_embeddings(body)
            vectors.extend(answer.vectors)
            tokens += answer.prompt_tokens or 0
        return Embeddings(model="", vectors=tuple(vectors), prompt_tokens=tokens)

    async def _shortened(self, request: Embed, text: str | tuple[int, ...]) -> Embeddings:
        async def ask(length: int) -> Embeddings:
            return await self._ask(structs.replace(request, inputs=(text[:length],)))

        return await cut_to_fit(ask, len(text), self._limits.context, least=1)


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    if not math.isfinite(length):
        raise BackendError("the model gave a vector with numbers that are not finite")
    return [value / length for value in vector] if length else vector
