"""Us as server of ``/v1/embeddings``.

The SDKs ask for base64 when their user says nothing: little-endian float32, as some decode whatever comes as that.
"""

from __future__ import annotations

import base64
import sys
from array import array
from functools import partial

import msgspec

from adapters.dialect import EmbedAsk
from adapters.openai import wire
from adapters.openai.effort import read_stay
from adapters.openai.fields import read
from adapters.openai.vocabulary import EMBEDDINGS
from canonical.errors import InvalidRequest
from canonical.requests import Embed, Embeddings, Origin

INPUTS = 2048
"""Inputs of one request, as at the vendor's."""

_request = msgspec.json.Decoder(wire.EmbeddingsRequest, strict=False)
_encode = msgspec.json.Encoder().encode


def read_embeddings(body: bytes) -> EmbedAsk:
    """An embeddings request and how to word its answer.

    Raises:
        InvalidRequest: the body breaks the format, an input is empty, or there are more than ``INPUTS``.
    """
    request = read(_request, body)
    form = request.encoding_format or "float"
    if form not in {"float", "base64"}:
        raise InvalidRequest(f"'encoding_format' must be float or base64, got {form[:40]!r}", param="encoding_format")
    lost: list[str] = []
    embed = Embed(
        model=request.model or "",
        inputs=_inputs(request.input),
        dimensions=request.dimensions,
        keep_alive=read_stay(request, lost),
        origin=Origin("openai", body, EMBEDDINGS, tuple(lost), plain=True),
    )
    return EmbedAsk(embed, partial(embeddings_reply, model=embed.model, packed=form == "base64"))


def embeddings_reply(embeddings: Embeddings, *, model: str, packed: bool) -> bytes:
    """The answer, its vectors ``packed`` into base64 or as numbers; tokens only if somebody counted."""
    tokens = embeddings.prompt_tokens
    return _encode(
        wire.EmbeddingsReply(
            data=[
                wire.Vector(index=index, embedding=pack(vector) if packed else vector)
                for index, vector in enumerate(embeddings.vectors)
            ],
            model=model or embeddings.model,
            usage=msgspec.UNSET if tokens is None else wire.EmbeddingUsage(tokens, tokens),
        )
    )


def pack(vector: list[float]) -> str:
    """Base64 of little-endian float32."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers).decode()


def unpack(text: str) -> list[float]:
    """The vector of ``pack``. Raises ValueError for what is not one."""
    numbers = array("f")
    numbers.frombytes(base64.b64decode(text, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        given = [given]
    elif given and all(isinstance(item, int) for item in given):
        given = [[item for item in given if isinstance(item, int)]]
    if not given:
        raise InvalidRequest("'input' must not be empty", param="input")
    if len(given) > INPUTS:
        raise InvalidRequest(f"at most {INPUTS} inputs are accepted", param="input")
    inputs: list[str | tuple[int, ...]] = []
    for position, item in enumerate(given):
        if isinstance(item, int):
            raise InvalidRequest("'input' must be a text, texts, token ids, or lists of token ids", param="input")
        if not item:
            raise InvalidRequest("an input must not be empty", param=f"input[{position}]")
        inputs.append(item if isinstance(item, str) else tuple(item))
    return tuple(inputs)
