"""Pack a diffusers SDXL folder into one original-format (SGM) .safetensors file, the way Pony Diffusion V6 XL is shipped."""
from __future__ import annotations

import argparse
import re
from pathlib import Path

import shapes  # noqa: F401  (offline switches)
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import save_file

RESNET = (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
          ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"))
TOP = (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"), ("conv_in", "input_blocks.0.0"),
       ("conv_norm_out", "out.0"), ("conv_out", "out.2"), ("add_embedding.linear_1", "label_emb.0.0"),
       ("add_embedding.linear_2", "label_emb.0.2"))


def unet_name(name: str, layers: int) -> str:
    step = layers + 1
    for ours, theirs in TOP:
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    if m := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.*)", name):
        return f"input_blocks.{step * (int(m[1]) + 1)}.0.op.{m[2]}"
    if m := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.(.*)", name):
        return f"output_blocks.{step * int(m[1]) + layers}.2.{m[2]}"
    m = re.match(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name)
    if m:
        n = step * int(m[2]) + int(m[4])
        head = f"input_blocks.{n + 1}" if m[1] == "down_blocks" else f"output_blocks.{n}"
        rest, kind = m[5], m[3]
    else:
        m = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name)
        kind, rest = m[1], m[3]
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(m[2])}." + (rest if kind == "attentions" else resnet(rest))
    return f"{head}.{0 if kind == 'resnets' else 1}." + (resnet(rest) if kind == "resnets" else rest)


def resnet(rest: str) -> str:
    for ours, theirs in RESNET:
        if rest.startswith(ours + "."):
            return theirs + rest.removeprefix(ours)
    raise KeyError(rest)


def vae_name(name: str, stages: int) -> str:
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.down.\1.block.\2.", name)
    name = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", name)
    name = re.sub(r"decoder\.up_blocks\.(\d+)\.resnets\.(\d+)\.",
                  lambda m: f"decoder.up.{stages - 1 - int(m[1])}.block.{m[2]}.", name)
    name = re.sub(r"decoder\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"decoder.up.{stages - 1 - int(m[1])}.upsample.", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)\.", lambda m: f"mid.block_{int(m[1]) + 1}.", name)
    name = name.replace("mid_block.attentions.0.", "mid.attn_1.").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("conv_norm_out", "norm_out")
    if ".attn_1." in name:
        for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            name = name.replace(ours, theirs)
    return name


def open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {}
    for key, value in state.items():
        key = key.removeprefix("text_model.")
        if m := re.match(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", key):
            if m[2] == "q":
                parts = [state[f"text_model.encoder.layers.{m[1]}.self_attn.{x}_proj.{m[3]}"] for x in "qkv"]
                out[f"transformer.resblocks.{m[1]}.attn.in_proj_{m[3]}"] = torch.cat(parts)
            continue
        key = re.sub(r"encoder\.layers\.(\d+)\.", r"transformer.resblocks.\1.", key)
        for ours, theirs in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                             ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("final_layer_norm", "ln_final"),
                             ("embeddings.token_embedding", "token_embedding"),
                             ("embeddings.position_embedding.weight", "positional_embedding")):
            key = key.replace(ours, theirs)
        if key == "text_projection.weight":
            key, value = "text_projection", value.t()
        out[key] = value
    return out


def pack(folder: Path, file: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float16)
    layers = pipe.unet.config.layers_per_block
    out = {f"model.diffusion_model.{unet_name(k, layers)}": v for k, v in pipe.unet.state_dict().items()}
    stages = len(pipe.vae.config.block_out_channels)
    for key, value in pipe.vae.state_dict().items():
        new = vae_name(key, stages)
        if ".attn_1." in new and new.endswith("weight") and value.ndim == 2:
            value = value[:, :, None, None]
        out[f"first_stage_model.{new}"] = value
    for key, value in pipe.text_encoder.state_dict().items():  # transformers >= 5.6 dropped the "text_model." level
        out[f"conditioner.embedders.0.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    out |= {f"conditioner.embedders.1.model.{k}": v for k, v in open_clip(pipe.text_encoder_2.state_dict()).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in out.items()}, file,
              metadata={"modelspec.architecture": "stable-diffusion-xl-v1-base", "modelspec.title": file.stem})
    print(f"{file}: {len(out)} tensors, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--base", type=Path, default=Path("../painting/tiny-sdxl-base"))
    ap.add_argument("--out", type=Path, default=Path("../painting/tiny-pony.safetensors"))
    args = ap.parse_args()
    pack(args.base, args.out)
