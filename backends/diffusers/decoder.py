"""From what a model paints in to a picture: runs in a worker process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image


class NotNumbers(Exception):
    """What was painted is no picture, as it overflowed."""


class Decoder:
    """The decoding half of one autoencoder."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self._wide = vae.dtype == torch.float16 and bool(vae.config.force_upcast)
        """Whether it is known to overflow in its own numbers."""

    def image(self, latents: torch.Tensor) -> Image.Image:
        """The picture of one latent. Raises NotNumbers."""
        if not torch.isfinite(latents).all():
            raise NotNumbers
        pixels = self._pixels(latents, wide=self._wide)
        if not torch.isfinite(pixels).all():
            # In 16 bits some pictures overflow; each by itself, so that it comes out the same whatever came before.
            pixels = self._pixels(latents, wide=True)
            if not torch.isfinite(pixels).all():
                raise NotNumbers  # else it would be a black picture, and nobody knew why
        values = (pixels[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        return Image.fromarray((values * 255).round().astype(np.uint8))

    def _pixels(self, latents: torch.Tensor, *, wide: bool) -> torch.Tensor:
        vae, config = self.vae, self.vae.config
        before = vae.dtype
        if wide:
            vae.to(dtype=torch.float32)
        try:
            latents = latents.to(vae.dtype) / config.scaling_factor
            if getattr(config, "latents_mean", None) is not None and getattr(config, "latents_std", None) is not None:
                mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (config.latents_mean, config.latents_std))
                latents = latents * std.to(latents) + mean.to(latents)
            pixels: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        finally:
            if wide:
                vae.to(dtype=before)
        return pixels
