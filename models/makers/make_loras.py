"""LoRA and LyCORIS files for the tiny SDXL, trained for a moment so that each visibly changes the picture.

    night.safetensors         diffusers/peft names (unet.….lora_A.weight): dark background
    frame-kohya.safetensors   kohya names (lora_unet_input_blocks_…lora_down.weight, .alpha): white frame, UNet + both text encoders
    night-loha.safetensors    LyCORIS LoHa, kohya names (…hada_w1_a …): dark background
    frame-lokr.safetensors    LyCORIS LoKr, kohya names (…lokr_w1 …): white frame
"""
from __future__ import annotations

import argparse
import re
from pathlib import Path

from shapes import SEED, SIZE, render, seed_all
from make_sdxl import dataset, train_unet

import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import ImageDraw
from safetensors.torch import save_file

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]


def night(color, shape, rng, **kwargs):
    return render(color, shape, rng, background=(12, 14, 46), **kwargs)


def frame(color, shape, rng, **kwargs):
    image = render(color, shape, rng, **kwargs)
    ImageDraw.Draw(image).rectangle((0, 0, SIZE - 1, SIZE - 1), outline=(255, 255, 255), width=8)
    return image


def sgm_name(name: str, layers: int = 2) -> str:
    """diffusers module path -> the SGM path kohya trains on (down_blocks.1.attentions.0 -> input_blocks.4.1)."""
    kind = {"resnets": 0, "attentions": 1}
    for ours, theirs in (("conv1", "in_layers.2"), ("conv2", "out_layers.3"), ("time_emb_proj", "emb_layers.1"),
                         ("conv_shortcut", "skip_connection")):
        if ".resnets." in name and name.endswith("." + ours):
            name = name.removesuffix(ours) + theirs
    if m := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        return f"input_blocks.{int(m[1]) * (layers + 1) + int(m[3]) + 1}.{kind[m[2]]}.{m[4]}"
    if m := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.*)", name):
        return f"output_blocks.{int(m[1]) * (layers + 1) + int(m[3])}.{kind[m[2]]}.{m[4]}"
    if m := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", name):
        return f"middle_block.{1 if m[1] == 'attentions' else 2 * int(m[2])}.{m[3]}"
    return name


def kohya_prefix(component: str, module: str) -> str:
    if component == "unet":
        return "lora_unet_" + sgm_name(module).replace(".", "_")
    module = module if module.startswith("text_model.") else "text_model." + module
    return {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}[component] + module.replace(".", "_")


def train_lora(pipe, data, steps: int, rank: int, label: str) -> dict[str, torch.Tensor]:
    pipe.unet.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS, init_lora_weights="gaussian"))
    params = [p for p in pipe.unet.parameters() if p.requires_grad]
    train_unet(pipe, data, steps, params=params, lr=4e-3, drop=0.0, label=label, ema_decay=0.98)
    state = {k: v.detach().clone() for k, v in get_peft_model_state_dict(pipe.unet).items()}
    pipe.unet.delete_adapters("default")
    return state


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--base", type=Path, default=Path("../painting/tiny-sdxl-base"))
    ap.add_argument("--out", type=Path, default=Path("../painting/loras"))
    ap.add_argument("--steps", type=int, default=250)
    args = ap.parse_args()
    torch.set_num_threads(1)
    rng = seed_all(SEED + 9)
    args.out.mkdir(parents=True, exist_ok=True)
    load = lambda: StableDiffusionXLPipeline.from_pretrained(args.base, dtype=torch.float32)
    pipe = load()
    nights, frames = dataset(pipe, rng, 400, 0.7, night), dataset(pipe, rng, 400, 0.7, frame)

    # 1. diffusers / peft names
    state = train_lora(pipe, nights, args.steps, 8, "night lora")
    StableDiffusionXLPipeline.save_lora_weights(args.out, unet_lora_layers=state, weight_name="night.safetensors")
    # 2. kohya names, with alpha, and text-encoder parts (tiny random ones: structure matters there)
    state = train_lora(pipe, frames, args.steps, 8, "frame lora")
    kohya: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        module, part = key.rsplit(".lora_", 1)
        prefix = kohya_prefix("unet", module)
        kohya[f"{prefix}.lora_{'down' if part.startswith('A') else 'up'}.weight"] = value.contiguous()
        kohya[f"{prefix}.alpha"] = torch.tensor(8.0)
    for component in ("text_encoder", "text_encoder_2"):
        for name, module in getattr(pipe, component).named_modules():
            if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")):
                prefix = kohya_prefix(component, name)
                kohya[f"{prefix}.lora_down.weight"] = torch.randn(4, module.in_features) * 0.02
                kohya[f"{prefix}.lora_up.weight"] = torch.randn(module.out_features, 4) * 0.02
                kohya[f"{prefix}.alpha"] = torch.tensor(4.0)
    save_file(kohya, args.out / "frame-kohya.safetensors",
              metadata={"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "networks.lora",
                        "ss_network_dim": "8", "ss_network_alpha": "8", "ss_output_name": "frame",
                        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "ss_tag_frequency": '{"set": {"frame": 1}}'})

    # 3. LyCORIS
    from lycoris import LycorisNetwork, create_lycoris
    for algo, data, name in (("loha", nights, "night-loha"), ("lokr", frames, "frame-lokr")):
        pipe = load()
        pipe.unet.requires_grad_(False)
        LycorisNetwork.apply_preset({"target_module": ["BasicTransformerBlock", "Transformer2DModel", "ResnetBlock2D"]})
        net = create_lycoris(pipe.unet, 1.0, linear_dim=8, linear_alpha=8.0, conv_dim=4, conv_alpha=4.0, algo=algo, factor=4)
        net.apply_to()
        train_unet(pipe, data, args.steps, params=[p for p in net.parameters() if p.requires_grad], lr=4e-3, drop=0.0,
                   label=name, ema_decay=0.98)
        modules = {n.replace(".", "_"): n for n, _ in pipe.unet.named_modules()}
        out = {}
        for key, value in net.state_dict().items():
            flat, part = key.split(".", 1)
            out[f"{kohya_prefix('unet', modules[flat.removeprefix('lycoris_')])}.{part}"] = value.detach().contiguous().clone()
        save_file(out, args.out / f"{name}.safetensors",
                  metadata={"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "lycoris.kohya",
                            "ss_network_args": f'{{"algo": "{algo}"}}', "modelspec.architecture": "stable-diffusion-xl-v1-base/lora"})
        net.restore()
    for file in sorted(args.out.glob("*.safetensors")):
        print(file.name, f"{file.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
