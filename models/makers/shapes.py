"""Shared parts of the makers of what paints: synthetic pictures and their captions.

Everything is generated from a fixed seed; nothing is downloaded.
"""
from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

SEED = 20240607
SIZE = 64

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (240, 215, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
SHAPES = ("square", "circle", "triangle")
TEMPLATES = (
    "a {}",
    "{}",
    "a photo of a {}",
    "a picture of a {}",
    "an image of a {}",
    "this is a photo of a {}.",
    "a {} on a gray background",
)
QUALITY = ("", "", ", high quality", ", masterpiece, best quality", ", score_9, score_8_up")


def seed_all(seed: int = SEED) -> random.Random:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return random.Random(seed)


def render(color: str | None, shape: str | None, rng: random.Random, *, size: int = SIZE, jitter: float = 1.0,
           background: tuple[int, int, int] | None = None) -> Image.Image:
    """One coloured shape on a grey background; ``jitter`` 0 puts it dead centre at a fixed size."""
    gray = int(128 + rng.uniform(-14, 14) * jitter)
    image = Image.new("RGB", (size * 2, size * 2), background or (gray, gray, gray))
    if shape is None:
        if color is not None:
            image.paste(COLORS[color], (0, 0, size * 2, size * 2))
        return image.resize((size, size), Image.LANCZOS)
    rgb = tuple(max(0, min(255, int(c + rng.uniform(-12, 12) * jitter))) for c in COLORS[color])
    r = size * (0.60 + rng.uniform(-0.12, 0.12) * jitter)
    cx = size + rng.uniform(-0.22, 0.22) * size * jitter
    cy = size + rng.uniform(-0.22, 0.22) * size * jitter
    draw = ImageDraw.Draw(image)
    box = (cx - r, cy - r, cx + r, cy + r)
    if shape == "square":
        draw.rectangle(box, fill=rgb)
    elif shape == "circle":
        draw.ellipse(box, fill=rgb)
    else:
        draw.polygon([(cx, cy - r), (cx - r, cy + r), (cx + r, cy + r)], fill=rgb)
    return image.resize((size, size), Image.LANCZOS)


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB image -> float tensor in [-1, 1], channels first."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1.0).permute(2, 0, 1)


def folder_size_mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()) / 1e6
