"""Us as server: what the gateway's routes import. The catalog stands here, the rest in its own file."""

from __future__ import annotations

import msgspec

from adapters.openai import wire
from adapters.openai.chat import read_chat
from adapters.openai.completion import read_completion
from adapters.openai.embeddings import read_embeddings
from adapters.openai.errors import error_body, error_status
from adapters.openai.rerank import read_rerank
from canonical.models import Capability, ModelInfo

__all__ = [
    "error_body",
    "error_status",
    "model_reply",
    "models_reply",
    "read_chat",
    "read_completion",
    "read_embeddings",
    "read_rerank",
]

_encode = msgspec.json.Encoder().encode


def models_reply(models: list[ModelInfo]) -> bytes:
    """The answer of ``GET /v1/models``."""
    return _encode(wire.ModelList(data=[_row(model) for model in models]))


def _gives(model: ModelInfo) -> list[str]:
    return (
        ["image"] if Capability.PAINT in model.capabilities and Capability.CHAT not in model.capabilities else ["text"]
    )


def model_reply(model: ModelInfo) -> bytes:
    """The answer of ``GET /v1/models/{id}``."""
    return _encode(_row(model))


def _row(model: ModelInfo) -> wire.ModelRow:
    row = wire.ModelRow(
        id=model.id,
        created=model.modified // 1_000_000_000,
        owned_by=model.owner or model.backend or "dragoman",
    )
    if model.context_length or model.parameter_count or model.size:
        row.meta = wire.ModelMeta(n_ctx_train=model.context_length, n_params=model.parameter_count, size=model.size)
    if model.context_length:
        row.max_model_len = model.context_length
    if model.capabilities:
        row.capabilities = sorted(model.capabilities)
        images = ["image"] if Capability.VISION in model.capabilities else []
        row.architecture = wire.Architecture(["text", *images], _gives(model))
    return row
