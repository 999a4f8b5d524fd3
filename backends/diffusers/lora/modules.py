"""The modules of a pipeline by every name that files of adapters have for them: runs in a worker process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

_IN_RESNETS = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_AROUND = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")

Table = dict[tuple[str, str], torch.nn.Module]
"""By the part of the pipeline and the module's name in it, with ``_`` for dots."""


def table(pipe: Any) -> Table:
    """All modules that have weights."""
    found: Table = {}
    unet = getattr(pipe.unet, "_orig_mod", pipe.unet)  # as it is before it is compiled
    layers = unet.config.layers_per_block
    attending = {int(name.split(".")[1]) for name, _ in unet.named_modules() if re.match(r"up_blocks\.\d+\.att", name)}
    for name, module in _weighed(unet):
        first = original(name, layers if isinstance(layers, int) else layers[0], attending)
        for spelt in (name, first, re.sub(r"\.to_out\.0$", ".to_out", name)):
            found["unet", spelt.replace(".", "_")] = module
    encoders = [model for model in ("text_encoder", "text_encoder_2") if getattr(pipe, model, None) is not None]
    for model in encoders:
        encoder = getattr(pipe, model)
        for name, module in _weighed(getattr(encoder, "_orig_mod", encoder)):
            flat = name.removeprefix("text_model.").replace(".", "_")
            found[model, flat] = module
            if encoders == ["text_encoder"]:
                found["only_text_encoder", flat] = module
    return found


def _weighed(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, module in model.named_modules():
        known = isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.GroupNorm | torch.nn.LayerNorm)
        if known and module.weight is not None:
            yield name, module


def original(name: str, layers: int, attending: set[int]) -> str:
    """A module of diffusers' UNet as Stability's own code calls it (``input_blocks.4.1``), which trainers took over.

    ``attending``: the blocks on the way up that have attention.
    """
    if name in _AROUND:
        return _AROUND[name]
    if match := _BLOCK.fullmatch(name):
        way, block, kind, number, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        step = layers + 1
        if kind == "downsamplers":
            return f"input_blocks.{step * (block + 1)}.0.op"
        if kind == "upsamplers":
            return f"output_blocks.{step * block + layers}.{2 if block in attending else 1}.{rest}"
        at = f"input_blocks.{step * block + number + 1}" if way == "down" else f"output_blocks.{step * block + number}"
        return f"{at}.0.{_in_resnet(rest)}" if kind == "resnets" else f"{at}.1.{rest}"
    if match := _MIDDLE.fullmatch(name):
        if match[1] == "attentions":
            return f"middle_block.1.{match[3]}"
        return f"middle_block.{2 * int(match[2])}.{_in_resnet(match[3])}"
    return name


def _in_resnet(name: str) -> str:
    return next((theirs for ours, theirs in _IN_RESNETS if name == ours), name)
