"""Marian's tensors under the names that CTranslate2 has for them. PyTorch and transformers are not needed.

Marian starts to decode from a zero vector. Hugging Face puts one into its matrices, as a row for ``<pad>`` behind the
vocabulary; CTranslate2 has a word for it, and that row goes. Where a model's row is not zero, as with those that were
trained otherwise, it stays, and decoding starts from it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from backends.marian.folders import Config, Folder
from backends.marian.weights import BadWeights, Weights

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
    Tensors = Mapping[str, Array]

EOS, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"
NEVER = -10_000.0
"""What is added to the score of a token that is not to be said; 16 bits hold it."""
ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_fast": "GELUTanh",
    "gelu_new": "GELUTanh",
    "gelu_python": "GELU",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "relu": "RELU",
    "silu": "SWISH",
    "swish": "SWISH",
}


def convert(folder: Folder, kind: str, out: Path) -> None:
    """Write the model of ``folder`` into ``out``, an empty folder, in CTranslate2's format, with numbers of one kind.

    Raises:
        ValueError: it is not as Marian's models are; says in which way.
        OSError: it cannot be read, or there is no room.
    """
    spec = _spec(folder)
    spec.validate()
    spec.optimize(quantization=kind)
    spec.save(str(out))


def _spec(folder: Folder) -> Any:
    specs = _specs()
    config, weights = folder.config, Weights(folder.weights)
    if config.activation_function not in ACTIVATIONS:
        raise ValueError(f"it has the activation {config.activation_function[:40]!r}, which CTranslate2 has not")
    activation = getattr(specs.common_spec.Activation, ACTIVATIONS[config.activation_function])
    encoder = specs.TransformerEncoderSpec(
        config.encoder_layers, config.encoder_attention_heads, pre_norm=False, activation=activation
    )
    decoder = specs.TransformerDecoderSpec(
        config.decoder_layers, config.decoder_attention_heads, pre_norm=False, activation=activation
    )
    try:
        return _filled(specs.TransformerSpec(encoder, decoder), config, folder, weights)
    except KeyError as error:
        raise BadWeights(f"its weights lack {error.args[0]}") from error


def _filled(spec: Any, config: Config, folder: Folder, weights: Tensors) -> Any:
    _layers(spec.encoder, "model.encoder", weights, config.encoder_layers, crossed=False)
    _layers(spec.decoder, "model.decoder", weights, config.decoder_layers, crossed=True)
    for side in (spec.encoder, spec.decoder):
        side.scale_embeddings = math.sqrt(config.d_model) if config.scale_embedding else 1.0
    spec.encoder.position_encodings.encodings = _positions("model.encoder", config, weights)
    spec.decoder.position_encodings.encodings = _positions("model.decoder", config, weights)
    source = _either(weights, "model.encoder.embed_tokens.weight", "model.shared.weight")
    target = _either(weights, "model.decoder.embed_tokens.weight", "model.shared.weight")
    head = _either(weights, "lm_head.weight", "model.decoder.embed_tokens.weight", "model.shared.weight")
    bias = weights["final_logits_bias"].reshape(-1) if "final_logits_bias" in weights else None
    tokens = _tokens(folder.path / "vocab.json", len(source))
    said = _tokens(folder.path / "target_vocab.json", len(target)) if config.separate else tokens
    if len(head) != len(target):
        raise BadWeights("it has other words to say than to read what it has said")
    pads = said[-1] == PAD and not target[-1].any()
    if pads:  # the usual case: the row says what CTranslate2 does without one
        said, target, head = said[:-1], target[:-1], head[:-1]
        bias = bias[:-1] if bias is not None else None
    elif PAD in said:
        bias = _silenced(bias, said.index(PAD), len(said))
    if tokens[-1] == PAD and (pads or config.separate):
        tokens, source = tokens[:-1], source[:-1]
    spec.encoder.embeddings[0].weight = source
    spec.decoder.embeddings.weight = target
    spec.decoder.projection.weight = head
    if bias is not None and bias.any():
        spec.decoder.projection.bias = bias
    spec.decoder.start_from_zero_embedding = pads
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(said)
    spec.config.eos_token, spec.config.unk_token = EOS, UNKNOWN
    spec.config.decoder_start_token = EOS if pads or PAD not in said else PAD
    return spec


def _layers(side: Any, name: str, weights: Tensors, count: int, *, crossed: bool) -> None:
    for index in range(count):
        layer, here = side.layer[index], f"{name}.layers.{index}"
        _attention(layer.self_attention, f"{here}.self_attn", weights, ("qkv",))
        if crossed:
            _attention(layer.attention, f"{here}.encoder_attn", weights, ("q", "kv"))
        _linear(layer.ffn.linear_0, f"{here}.fc1", weights)
        _linear(layer.ffn.linear_1, f"{here}.fc2", weights)
        _norm(layer.ffn.layer_norm, f"{here}.final_layer_norm", weights)


def _attention(spec: Any, name: str, weights: Tensors, joined: tuple[str, ...]) -> None:
    import numpy as np

    for linear, letters in zip(spec.linear, joined, strict=False):
        for kind in ("weight", "bias"):
            parts = [weights[f"{name}.{letter}_proj.{kind}"] for letter in letters]
            setattr(linear, kind, np.concatenate(parts) if len(parts) > 1 else parts[0])
    _linear(spec.linear[-1], f"{name}.out_proj", weights)
    _norm(spec.layer_norm, f"{name}_layer_norm", weights)


def _linear(spec: Any, name: str, weights: Tensors) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _norm(spec: Any, name: str, weights: Tensors) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _positions(name: str, config: Config, weights: Tensors) -> Array:
    """The file's own; most have none, for they are always these: sines in the first half, cosines in the second."""
    import numpy as np

    kept = f"{name}.embed_positions.weight"
    if kept in weights:
        return weights[kept]
    places = np.arange(config.max_position_embeddings)[:, None]
    angles = places / np.power(10000, 2 * (np.arange(config.d_model) // 2) / config.d_model)
    waves = np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1)
    return waves.astype(weights["model.encoder.layers.0.fc1.weight"].dtype)


def _either(weights: Tensors, *names: str) -> Array:
    return weights[next((name for name in names if name in weights), names[-1])]


def _silenced(bias: Array | None, index: int, size: int) -> Array:
    import numpy as np

    changed = np.zeros(size, dtype=np.float32) if bias is None else np.array(bias)
    changed[index] = NEVER
    return changed


def _tokens(path: Path, rows: int) -> list[str]:
    """The vocabulary in the order of its ids."""
    try:
        ids = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except msgspec.MsgspecError as error:
        raise ValueError(f"its {path.name} is not a vocabulary") from error
    tokens = sorted(ids, key=lambda token: ids[token])[:rows]
    if [ids[token] for token in tokens] != list(range(rows)):
        raise ValueError(f"its {path.name} has not one word for each of the {rows} rows of its weights")
    if EOS not in ids or UNKNOWN not in ids:
        raise ValueError(f"its {path.name} lacks {EOS} or {UNKNOWN}")
    return tokens


def _specs() -> Any:
    """CTranslate2's descriptions of models, which import PyTorch where it is installed: 200 MB that are of no use here."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # so Python says that it is not there
    try:
        from ctranslate2 import specs
        from ctranslate2.specs import common_spec
    finally:
        if absent:
            del sys.modules["torch"]
    specs.common_spec = common_spec
    return specs
