"""Tiny SDXL and SDXL-turbo pipelines that really draw "a red square", saved in diffusers format.

Needs the tiny CLIP of make_clip.py (its text half becomes text_encoder_2). About ten minutes on one CPU core;
``--random`` skips all training (structure only, a few seconds).
"""
from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from shapes import COLORS, QUALITY, SEED, SHAPES, SIZE, TEMPLATES, folder_size_mb, render, seed_all, to_tensor

import torch
import torch.nn.functional as F
from diffusers import (AutoencoderKL, DDPMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
                       StableDiffusionXLPipeline, UNet2DConditionModel)
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

NOISE = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def new_vae() -> AutoencoderKL:
    return AutoencoderKL(in_channels=3, out_channels=3, latent_channels=4, sample_size=SIZE,
                         down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                         block_out_channels=(8, 16, 32, 32), layers_per_block=1, norm_num_groups=2,
                         act_fn="silu", scaling_factor=0.13025, force_upcast=False)


def new_unet(cross: int, pooled: int) -> UNet2DConditionModel:
    # SDXL's own shape (3 stages, 2 layers each, text_time embedding, linear projections), thinner
    return UNet2DConditionModel(
        sample_size=SIZE // 8, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(32, 48, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2), attention_head_dim=(2, 3, 4), use_linear_projection=True,
        cross_attention_dim=cross, addition_embed_type="text_time", addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=pooled + 6 * 16, norm_num_groups=16)


def train_vae(vae: AutoencoderKL, steps: int) -> None:
    rng = seed_all(SEED + 2)
    pool = [render(c, s, rng, jitter=rng.choice((0.0, 1.0, 1.3)))
            for c in COLORS for s in (*SHAPES, None) for _ in range(30)]
    # frames and dark backgrounds too, so that LoRA styles can be expressed
    pool += [render(c, s, rng, background=(rng.randrange(256), rng.randrange(256), rng.randrange(256)))
             for c in COLORS for s in SHAPES for _ in range(30)]
    pixels = torch.stack([to_tensor(p) for p in pool])
    with torch.no_grad():  # a constant, small variance: the encoder is trained as a plain autoencoder
        vae.quant_conv.weight[4:] = 0.0
        vae.quant_conv.bias[4:] = -6.0
    opt = torch.optim.Adam(vae.parameters(), lr=2e-3)
    started = time.time()
    for step in range(steps):
        for group in opt.param_groups:
            group["lr"] = 3e-3 * min(1.0, step / 30) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 2e-5
        batch = pixels[torch.randint(0, len(pixels), (8,))]
        mean = vae.encode(batch).latent_dist.mean
        out = vae.decode(mean + 0.05 * torch.randn_like(mean)).sample
        loss = F.l1_loss(out, batch) + F.mse_loss(out, batch) + 1e-4 * mean.square().mean()
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        opt.step()
        if step % 100 == 0:
            print(f"vae step {step} l1 {F.l1_loss(out, batch).item():.4f} {time.time() - started:.0f}s", flush=True)
    vae.eval().requires_grad_(False)
    with torch.no_grad():
        z = vae.encode(pixels[::8]).latent_dist.sample()
        out = vae.decode(z).sample
    vae.register_to_config(scaling_factor=float(1.0 / z.std()))
    print(f"vae: {steps} steps, mean abs error {F.l1_loss(out, pixels[::8]).item() * 127.5:.1f}/255, "
          f"scaling_factor {vae.config.scaling_factor:.4f}", flush=True)


@torch.no_grad()
def encode_prompts(pipe, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    embeds, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    return embeds, pooled


def caption_for(color: str, shape: str, rng) -> str:
    kind = rng.random()
    what = f"{color} {shape}" if kind < 0.75 else color if kind < 0.9 else shape
    return rng.choice(TEMPLATES).format(what) + rng.choice(QUALITY)


@torch.no_grad()
def dataset(pipe, rng, count: int, jitter: float, draw=render):
    """(latents, prompt embeddings, pooled embeddings), everything computed once."""
    pictures, captions = [], []
    for _ in range(count):
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        pictures.append(to_tensor(draw(color, shape, rng, jitter=jitter)))
        captions.append(caption_for(color, shape, rng))
    latents = torch.cat([pipe.vae.encode(torch.stack(pictures[i:i + 64])).latent_dist.mode()
                         for i in range(0, count, 64)]) * pipe.vae.config.scaling_factor
    pairs = [encode_prompts(pipe, captions[i:i + 64]) for i in range(0, count, 64)]
    return latents, torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])


def time_ids(n: int) -> torch.Tensor:
    return torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], dtype=torch.float32).repeat(n, 1)


def train_unet(pipe, data, steps: int, *, params=None, lr: float = 1.5e-3, batch_size: int = 16, drop: float = 0.12,
               turbo: bool = False, label: str = "unet", ema_decay: float = 0.995) -> None:
    latents, embeds, pooled = data
    unet, noise = pipe.unet, DDPMScheduler(**NOISE)
    params = list(params if params is not None else unet.parameters())
    opt = torch.optim.AdamW(params, lr=lr, weight_decay=1e-3)
    ema = [p.detach().clone() for p in params]
    unet.train()
    started, shown = time.time(), []
    for step in range(steps):
        for group in opt.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + 1e-6
        pick = torch.randint(0, len(latents), (batch_size,))
        x0, e, p = latents[pick], embeds[pick].clone(), pooled[pick].clone()
        if not turbo:  # unconditional half of classifier-free guidance: SDXL zeroes the embeddings
            zero = torch.rand(batch_size) < drop
            e[zero], p[zero] = 0.0, 0.0
        eps = torch.randn_like(x0)
        if turbo:
            t = torch.tensor([999, 749, 499, 249])[torch.randint(0, 4, (batch_size,))]
        else:
            t = torch.randint(0, 1000, (batch_size,))
        noisy = noise.add_noise(x0, eps, t)
        guess = unet(noisy, t, encoder_hidden_states=e,
                     added_cond_kwargs={"text_embeds": p, "time_ids": time_ids(batch_size)}).sample
        if turbo:  # few-step model: what counts is the clean picture guessed from nearly pure noise
            a = noise.alphas_cumprod[t].view(-1, 1, 1, 1)
            loss = F.smooth_l1_loss((noisy - (1 - a).sqrt() * guess) / a.sqrt(), x0)
        else:
            loss = F.mse_loss(guess, eps)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        decay = min(ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(ema, [q.detach() for q in params], 1 - decay)
        shown.append(loss.item())
        if step % 200 == 0:
            print(f"{label} step {step} loss {sum(shown[-200:]) / len(shown[-200:]):.4f} {time.time() - started:.0f}s",
                  flush=True)
    with torch.no_grad():
        for q, v in zip(params, ema):
            q.copy_(v)
    unet.eval()
    print(f"{label}: {steps} steps in {time.time() - started:.0f}s, loss {sum(shown[-100:]) / max(1, len(shown[-100:])):.4f}")


def save(pipe, folder: Path) -> None:
    """Half precision on disk, as real SDXL folders are kept; loading with dtype=float32 widens again."""
    pipe.unet.eval()
    pipe.to(torch.float16).save_pretrained(folder)
    pipe.to(torch.float32)
    print(f"{folder}: {folder_size_mb(folder):.1f} MB", flush=True)


def main() -> None:
    ap = argparse.ArgumentParser()
    ap.add_argument("--clip", type=Path, default=Path("../clip/clip-shapes"))
    ap.add_argument("--out", type=Path, default=Path("../painting"))
    ap.add_argument("--vae-steps", type=int, default=1500)
    ap.add_argument("--unet-steps", type=int, default=2500)
    ap.add_argument("--turbo-steps", type=int, default=700)
    ap.add_argument("--random", action="store_true", help="no training: right structure, noise pictures")
    args = ap.parse_args()
    torch.set_num_threads(1)
    rng = seed_all()
    tokenizer = CLIPTokenizer.from_pretrained(args.clip)
    clip = CLIPModel.from_pretrained(args.clip)
    eos = tokenizer.eos_token_id
    text1 = CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=4, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=32, hidden_act="quick_gelu", eos_token_id=eos,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=eos)).eval().requires_grad_(False)
    text2 = CLIPTextModelWithProjection(clip.config.text_config).eval().requires_grad_(False)
    missing = text2.load_state_dict({k: v for k, v in clip.state_dict().items() if k.startswith("text_")}, strict=False)
    assert not missing.missing_keys, missing
    cross = text1.config.hidden_size + text2.config.hidden_size
    pipe = StableDiffusionXLPipeline(
        vae=new_vae(), unet=new_unet(cross, text2.config.projection_dim), text_encoder=text1, text_encoder_2=text2,
        tokenizer=tokenizer, tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading", steps_offset=1),
        force_zeros_for_empty_prompt=True, add_watermarker=False)
    print({n: f"{sum(q.numel() for q in getattr(pipe, n).parameters()) / 1e6:.2f}M"
           for n in ("unet", "vae", "text_encoder", "text_encoder_2")})
    if not args.random:
        train_vae(pipe.vae, args.vae_steps)
        save(pipe, args.out / "tiny-sdxl-base")
        train_unet(pipe, dataset(pipe, rng, 3000, 1.0), args.unet_steps)
    save(pipe, args.out / "tiny-sdxl-base")
    # turbo: same weights, tuned further to guess the clean picture in one to four steps
    if not args.random:
        train_unet(pipe, dataset(pipe, rng, 1500, 0.0), args.turbo_steps, turbo=True, lr=8e-4, label="turbo")
    pipe.scheduler = EulerAncestralDiscreteScheduler(**NOISE, timestep_spacing="trailing")
    save(pipe, args.out / "tiny-sdxl-turbo")


if __name__ == "__main__":
    main()
