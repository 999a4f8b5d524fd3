"""The names of tensors in the files of adapters, however they are written: diffusers', peft's, kohya's and LyCORIS's, old ones too.

Every tensor is a part of what changes one module of the model: ``lora_unet_input_blocks_4_1_proj_in.lora_down.weight`` is
the part ``down`` for a module of the UNet that its first half names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec import Struct

_TAIL = re.compile(
    r"(?P<module>.+?)(?:\.(?P<part>"
    r"lora_(?:down|up|mid)\.weight|lora_[AB](?:\.default)?\.weight|lora(?:_linear_layer)?\.(?:down|up)\.weight"
    r"|alpha|dora_scale|lora_magnitude_vector(?:\.default)?(?:\.weight)?"
    r"|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|oft_blocks|rescale"
    r"|[ab][12]\.weight|bm\.weight|diff_b|diff|w_norm|b_norm|on_input|weight"
    r")|_(?P<old>lora\.(?:down|up)\.weight))"
)
_PARTS = {
    "lora_down.weight": "down",
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.down.weight": "down",
    "lora_up.weight": "up",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora.up.weight": "up",
    "lora_linear_layer.up.weight": "up",
    "lora_mid.weight": "mid",
    "dora_scale": "dora",
}
_MODELS = (
    # how a name begins, and what it is in; the longest first
    ("text_encoder_2_", "text_encoder_2"),
    ("text_encoder_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te_", "only_text_encoder"),
    ("lora_unet_", "unet"),
    ("lycoris_", "unet"),
    ("model_diffusion_model_", "unet"),
    ("diffusion_model_", "unet"),
    ("unet_", "unet"),
)
_KINDS = (
    # what tells a kind, the likeliest first
    ("lora", {"down", "up"}),
    ("loha", {"hada_w1_a"}),
    ("lokr", {"lokr_w1"}),
    ("lokr", {"lokr_w1_a"}),
    ("oft", {"oft_blocks"}),
    ("glora", {"a1", "b1"}),
    ("ia3", {"weight", "on_input"}),
    ("full", {"diff"}),
    ("full", {"diff_b"}),
    ("norm", {"w_norm"}),
    ("norm", {"b_norm"}),
)
KINDS = frozenset(kind for kind, _ in _KINDS)


class Part(Struct, frozen=True):
    """Of what changes a module."""

    model: str
    """``unet``, ``text_encoder``, ``text_encoder_2``; ``only_text_encoder``: of a model that has but one."""
    module: str
    """Its name, with ``_`` for dots."""
    name: str


def part_of(key: str) -> Part | None:
    """What a tensor of this name is; None: it belongs to no adapter."""
    match = _TAIL.fullmatch(key)
    if match is None:
        return None
    tail = match["part"] or match["old"]
    name = _PARTS.get(tail) or ("dora" if tail.startswith("lora_magnitude") else tail.removesuffix(".weight"))
    module = match["module"].replace(".processor", "").replace(".", "_").removeprefix("base_model_model_")
    for begin, model in _MODELS:
        if module.startswith(begin):
            return Part(model, module.removeprefix(begin).removeprefix("text_model_"), name)
    return Part("unet", module, name)


def kind_of(names: Iterable[str]) -> str:
    """The algorithm of a module's parts; empty: none that is known."""
    names = set(names)
    return next((kind for kind, signs in _KINDS if signs <= names), "")
