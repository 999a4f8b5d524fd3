"""``/models``, ``/models/load`` and ``/models/unload``: what is asked, and the answers.

A load or an unload that fails says so in its body, with status 200: that is what this API's clients look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import UNSET

from adapters.hybrid import wire
from adapters.hybrid.errors import invalid, of_the_body, reason
from adapters.ollama.times import rfc3339
from adapters.reading import read_body
from canonical.errors import GatewayError
from canonical.models import Capability, LoadedModel

NOTHING_TO_UNLOAD = "Must specify model_key or unload_all=true"

_load = msgspec.json.Decoder(wire.LoadRequest, strict=False)
_unload = msgspec.json.Decoder(wire.UnloadRequest, strict=False)
_encode = msgspec.json.Encoder().encode
_TEXT = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.INSERT})


def read_load(body: bytes) -> wire.LoadRequest:
    """A request to load a model. Raises InvalidRequest."""
    with of_the_body():
        return read_body(_load, body, invalid)


def read_unload(body: bytes) -> wire.UnloadRequest:
    """A request to unload one model, or all. Raises InvalidRequest."""
    with of_the_body():
        return read_body(_unload, body, invalid)


def rows(models: Iterable[LoadedModel]) -> bytes:
    """What is loaded, as a JSON list."""
    return _encode([_row(model) for model in models if not model.loading])


def loaded_reply(key: str, resident: LoadedModel | None) -> bytes:
    """The answer of a load that went well."""
    row = _row(resident) if resident is not None else wire.ModelRow(key=key, display_name=key, id=key, name=key)
    return _encode(wire.Loaded(loaded=True, model=row))


def not_loaded_reply(error: GatewayError) -> bytes:
    """The answer of a load that failed."""
    return _encode(wire.Loaded(loaded=False, error=f"Failed to load model: {reason(error)}"))


def unloaded_reply(keys: Sequence[str]) -> bytes:
    """The answer of an unload; ``keys`` are the models that went."""
    return _encode(wire.Unloaded(success=True, unloaded_keys=list(keys)))


def not_unloaded_reply(error: GatewayError | None) -> bytes:
    """The answer of an unload that failed, or (None) that names nothing."""
    said = NOTHING_TO_UNLOAD if error is None else f"Failed to unload model: {reason(error)}"
    return _encode(wire.Unloaded(success=False, unloaded_keys=[], error=said))


def _row(model: LoadedModel) -> wire.ModelRow:
    info = model.info
    return wire.ModelRow(
        key=info.id,
        display_name=info.id,
        id=info.id,
        name=info.title or info.id,
        supported_loras=list(info.loras),
        loaded=True,
        type=_kind(info.capabilities),
        backend=info.backend,
        architecture=info.family,
        quantization=info.quantization,
        context_length=model.context_length or info.context_length,
        size_bytes=model.size,
        expires_at=UNSET if model.expires is None else rfc3339(model.expires),
    )


def _kind(able: frozenset[Capability]) -> wire.Kind:
    """A model whose abilities nobody knows is taken for a language model."""
    if Capability.VISION in able:
        return "vlm"
    if not able or able & _TEXT:
        return "llm"
    return "embedding" if Capability.EMBED in able else "other"
