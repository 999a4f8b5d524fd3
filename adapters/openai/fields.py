"""What the requests share: strict decoding with the vendor's codes, sampling, choices, and what never travels on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import TypeVar

import msgspec
from msgspec import Raw

from adapters.openai import wire
from adapters.reading import Reading, fault_of, read_body, read_request
from canonical.errors import InvalidRequest, Unsupported
from canonical.limits import CHOICES, check_grammar, check_schema
from canonical.requests import Generate, Sampling, Think

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

EFFORTS: dict[str, Think] = {
    "none": "off",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
"""``reasoning_effort`` -> canonical; an unknown word is ignored, as the vendor adds some every year."""

THINK: dict[Think, str] = {
    "off": "none",
    "on": "medium",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "xhigh",
}
"""Canonical -> ``reasoning_effort``."""

DANGEROUS = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "callbacks",
        "chat_template",
        "extra_headers",
        "failure_callback",
        "proxy",
        "success_callback",
    }
)
"""Fields by which LiteLLM or vLLM let a body choose addresses, keys, hooks or templates: no client of ours may."""

_SEED_LIMIT = 2**63
_WRONG_TYPE = re.compile(r"^Expected `[^`]*`, got ")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Check ``body`` against the JSON limits and decode it.

    Raises:
        InvalidRequest: with the vendor's code and the field's path.
    """
    return read_body(decoder, body, invalid)


def read_known(reading: Reading[S], body: bytes) -> tuple[S, bool]:
    """As ``read``, and whether nothing inside the known fields was passed over."""
    return read_request(reading, body, invalid)


def sampling(request: wire.Draw, max_tokens: int | None) -> Sampling:
    """How to draw tokens."""
    stop = request.stop
    penalty = request.repeat_penalty
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        typical_p=request.typical_p,
        repeat_penalty=request.repetition_penalty if penalty is None else penalty,
        repeat_last_n=request.repeat_last_n,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        seed=request.seed,
        max_tokens=max_tokens,
        # An empty one is found at once by every engine, and would end the answer before its first letter.
        stop=tuple(text for text in ((stop,) if isinstance(stop, str) else stop or ()) if text),
        logit_bias=request.logit_bias,
    )


def choices(request: Generate, n: int | None) -> Iterator[Generate]:
    """``n`` requests that differ in their seed alone, or they would answer the same.

    Raises:
        InvalidRequest: ``n`` is not between 1 and ``CHOICES``.
    """
    n = 1 if n is None else n
    if not 1 <= n <= CHOICES:
        raise InvalidRequest(f"'n' must be between 1 and {CHOICES}, got {n}", param="n")
    yield request
    seed = request.sampling.seed
    for choice in range(1, n):
        if seed is None or seed < 0:
            # A negative seed means a random one to llama.cpp.
            yield request
        else:
            drawn = msgspec.structs.replace(request.sampling, seed=(seed + choice) % _SEED_LIMIT)
            yield msgspec.structs.replace(request, sampling=drawn)


def check_constraints(grammar: str | None, json_schema: Raw) -> None:
    """Hold llama-server's own fields to the limits too, for they travel to it as extras."""
    if grammar is not None:
        check_grammar(grammar)
    if bytes(json_schema) not in {b"", b"null"}:
        check_schema(json_schema, param="json_schema")


def schema_text(schema: Raw, param: str) -> Raw | None:
    """A JSON Schema as it came; None where it is absent or null.

    Raises:
        InvalidRequest: it is no object.
    """
    text = bytes(schema)
    if text in {b"", b"null"}:
        return None
    if text[:1] != b"{":
        raise InvalidRequest("a JSON Schema must be an object", param=param, code="invalid_type")
    return schema


def refuse_dangerous(names: AbstractSet[str]) -> None:
    """Raises Unsupported when a field would let the client steer the backend instead of the model."""
    found = sorted(names & DANGEROUS)
    if found:
        raise Unsupported(f"'{found[0]}' is not accepted from clients", param=found[0])


def missing(path: str) -> InvalidRequest:
    """A field that must be there is not."""
    return InvalidRequest(f"missing required parameter: '{path}'", param=path, code="missing_required_parameter")


def invalid(text: str) -> InvalidRequest:
    """What the decoder found wrong, in the vendor's words: its code, and the path of the field."""
    fault = fault_of(text)
    if fault.missing:
        return missing(fault.path)
    code = "invalid_type" if _WRONG_TYPE.match(fault.words) else "invalid_value"
    words = fault.words[:1].lower() + fault.words[1:]
    if not fault.path:
        return InvalidRequest(f"the body is wrong: {words}", code=code)
    return InvalidRequest(f"invalid '{fault.path}': {words}", param=fault.path, code=code)
