"""Pictures that are half finished: runs in a worker process."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from PIL import Image

from backends.diffusers.canvas import Canvas
from backends.diffusers.decoder import Decoder
from backends.diffusers.start import Previews as How

Colours = np.ndarray[Any, np.dtype[np.float64]]
_SMALL = 256 * 256
"""Pixels up to which a processor decodes a picture in no time."""
_PATCHES, _WIDE = 8, 4
"""How many in each row, and how many numbers wide each is."""


class Guess:
    """What a sampler thinks at each step that the picture will be: what it has is still full of noise."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._told: torch.Tensor | None = None
        step = scheduler.step

        @functools.wraps(step)  # pipelines look at what it takes: a generator, or else its noise is anybody's
        def overheard(*args: Any, **more: Any) -> Any:
            out = step(*args, **more)
            self._told = out[1] if isinstance(out, tuple) and len(out) > 1 else None
            return out

        scheduler.step = overheard

    def last(self, latents: torch.Tensor) -> torch.Tensor:
        """After a step that gave these."""
        if self._told is not None and self._told.shape == latents.shape:
            return self._told
        thoughts = getattr(self._scheduler, "model_outputs", None) or [None]
        last = thoughts[-1]
        ahead = str(getattr(self._scheduler.config, "algorithm_type", "")).endswith("++")
        return last if ahead and isinstance(last, torch.Tensor) and last.shape == latents.shape else latents


class Previews:
    """Of one model."""

    def __init__(self, decoder: Decoder, how: How, place: str) -> None:
        self._decoder = decoder
        self._how = how
        self._place = place
        self._colours: Colours | None = None
        """What to multiply a latent with for red, green and blue; found when first needed."""

    def due(self, done: int, total: int, wanted: int) -> bool:
        """Whether one is to be made after this step: at even distances, and none of the last step."""
        return done < total and any(done == max(1, total * part // (wanted + 1)) for part in range(1, wanted + 1))

    def of(self, latents: torch.Tensor, canvas: Canvas) -> Image.Image:
        """What is there so far."""
        width, height = canvas.size
        if self._how == "full" or (self._how == "auto" and (self._place != "cpu" or width * height <= _SMALL)):
            image = self._decoder.image(latents)
        else:
            image = self._rough(latents).resize(canvas.size, Image.Resampling.BILINEAR)
        return canvas.finished(image)

    def _rough(self, latents: torch.Tensor) -> Image.Image:
        """One pixel for each number of the latent: no autoencoder has to run."""
        if self._colours is None:
            self._colours = self._found()
        flat = latents[0].float().permute(1, 2, 0).cpu().numpy()
        ones = np.ones((*flat.shape[:2], 1))
        values = np.concatenate([flat, ones], axis=2) @ self._colours
        return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))

    def _found(self) -> Colours:
        """What numbers of a latent mean to this autoencoder: it decodes patches of known ones."""
        count = self._decoder.vae.config.latent_channels
        numbers = torch.randn((_PATCHES**2, count), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        latents = numbers.T.reshape(1, count, _PATCHES, _PATCHES)
        latents = latents.repeat_interleave(_WIDE, 2).repeat_interleave(_WIDE, 3)
        shown = self._decoder.image(latents.to(device=self._place, dtype=torch.float32))
        middles = np.asarray(shown.resize((_PATCHES, _PATCHES), Image.Resampling.BOX), dtype=float).reshape(-1, 3) / 255
        known = np.concatenate([numbers.numpy(), np.ones((_PATCHES**2, 1))], axis=1)
        colours: Colours = np.linalg.lstsq(known, middles, rcond=None)[0]
        return colours
