"""The catalog, as ``/api/v1/models`` and ``/api/v0/models`` tell it.

Both know language models and embedding models and nothing else: a ranking model is not listed. A model whose abilities
nobody knows is taken for a language model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET

from adapters.lmstudio import wire
from adapters.ollama.discovery import parameter_size
from canonical.models import Capability, LoadedModel, ModelInfo

Resident = Mapping[str, LoadedModel]
"""Id -> what holds memory, or a server's connection, now."""

OPTIONS = ["off", "on", "low", "medium", "high"]

_LANGUAGE = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.INSERT})
_BITS = re.compile(r"(?:Q|F|FP|INT)(\d+)|(\d+)-?BIT")

_encode = msgspec.json.Encoder().encode


def models_reply(models: Sequence[ModelInfo], resident: Resident) -> bytes:
    """The answer of ``GET /api/v1/models``."""
    return _encode(wire.ModelList([_row(model, resident) for model in models if listed(model)]))


def old_models_reply(models: Sequence[ModelInfo], resident: Resident) -> bytes:
    """The answer of ``GET /api/v0/models``."""
    return _encode(wire.OldList(data=[_old_row(model, resident) for model in models if listed(model)]))


def old_model_reply(model: ModelInfo, resident: Resident) -> bytes:
    """The answer of ``GET /api/v0/models/{model}``."""
    return _encode(_old_row(model, resident))


def embeds(info: ModelInfo) -> bool:
    """Whether a model makes vectors and nothing else."""
    return Capability.EMBED in info.capabilities and not info.capabilities & _LANGUAGE


def load_config(info: ModelInfo, resident: LoadedModel | None) -> wire.LoadConfig:
    """How a model is loaded, as far as that is known."""
    if resident is None:
        return wire.LoadConfig(context_length=info.context_length)
    config = wire.LoadConfig(context_length=resident.context_length or info.context_length)
    if not embeds(info):
        config.eval_batch_size = resident.batch or None
        config.parallel = resident.slots or None
    return config


def listed(info: ModelInfo) -> bool:
    """Whether there is a word for what it does."""
    return not info.capabilities or bool(info.capabilities & (_LANGUAGE | {Capability.EMBED}))


def _row(info: ModelInfo, resident: Resident) -> wire.ModelRow:
    loaded = resident.get(info.id)
    size = info.parameter_size or (parameter_size(info.parameter_count) if info.parameter_count else None)
    row = wire.ModelRow(
        type="embedding" if embeds(info) else "llm",
        publisher=_publisher(info),
        key=info.id,
        display_name=info.id,
        quantization=wire.Quantization(info.quantization, bits(info.quantization)) if info.quantization else None,
        size_bytes=info.size,
        params_string=size,
        loaded_instances=[wire.Instance(info.id, load_config(info, loaded))] if loaded is not None else [],
        max_context_length=info.context_length,
        format=info.format if info.format in {"gguf", "mlx"} else None,
    )
    if row.type == "llm":
        row.architecture = info.family or None
        row.description = None
        row.capabilities = wire.Abilities(
            vision=Capability.VISION in info.capabilities,
            trained_for_tool_use=Capability.TOOLS in info.capabilities,
            reasoning=wire.Reasons(OPTIONS, "on") if Capability.REASONING in info.capabilities else UNSET,
        )
    return row


def _old_row(info: ModelInfo, resident: Resident) -> wire.OldRow:
    loaded = resident.get(info.id)
    vision = Capability.VISION in info.capabilities
    return wire.OldRow(
        id=info.id,
        object="model",
        type="embeddings" if embeds(info) else "vlm" if vision else "llm",
        publisher=_publisher(info),
        arch=info.family or None,
        # There are two words, and clients refuse the whole list for a third, or none.
        compatibility_type="mlx" if info.format == "mlx" else "gguf",
        quantization=info.quantization or None,
        state="not-loaded" if loaded is None else "loaded",
        max_context_length=info.context_length or None,
        loaded_context_length=None if loaded is None else loaded.context_length or info.context_length or None,
        capabilities=["tool_use"] if Capability.TOOLS in info.capabilities else None,
    )


def _publisher(info: ModelInfo) -> str:
    return info.owner or info.backend or "dragoman"


def bits(quantization: str) -> float | None:
    """How many bits a weight has, by the name of its packing: ``Q4_K_M``, ``BF16``, ``4bit``. None: the name does not say."""
    found = _BITS.search(quantization.upper())
    return float(found[1] or found[2]) if found else None
