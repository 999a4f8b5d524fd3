"""Pictures that are half finished: runs in a worker process."""

from __future__ import annotations

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
_PATCH = 32
_SHADES = (0.1, 0.4, 0.7, 0.95)


class Guess:
    """What a sampler thinks at each step that the picture will be: what it has is still full of noise."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._told: torch.Tensor | None = None
        step = scheduler.step

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
        """How colours look to this autoencoder: it is shown patches of known ones."""
        vae = self._decoder.vae
        shades = np.array([[r, g, b] for r in _SHADES for g in _SHADES for b in _SHADES])
        patches = shades.reshape(8, 8, 3).repeat(_PATCH, axis=0).repeat(_PATCH, axis=1)
        shown = torch.from_numpy(patches * 2 - 1).permute(2, 0, 1)[None].to(vae.dtype)
        seen = self._decoder.encoded(shown)[0].float().permute(1, 2, 0).cpu().numpy()
        side = seen.shape[0] // 8
        middles = seen[side // 2 :: side, side // 2 :: side].reshape(64, -1)
        colours: Colours = np.linalg.lstsq(np.concatenate([middles, np.ones((64, 1))], axis=1), shades, rcond=None)[0]
        return colours
