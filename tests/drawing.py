"""Pictures for tests: coloured shapes as the demo CLIP knows them, and lines of text in a font that has accents."""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FONT = Path(__file__).parent / "fonts" / "DejaVuSans-latin.ttf"
COLOURS = {
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


def shape(colour: str, kind: str, chance: random.Random | None = None, *, size: int = 64) -> Image.Image:
    """One shape on grey, somewhere about the middle; without ``chance`` right there."""

    def off(by: float) -> float:
        return chance.uniform(-by, by) if chance else 0.0

    image = Image.new("RGB", (2 * size, 2 * size), (128 + int(off(14)),) * 3)
    radius, x, y = size * (0.6 + off(0.12)), size * (1 + off(0.22)), size * (1 + off(0.22))
    fill = tuple(min(255, max(0, int(part + off(12)))) for part in COLOURS[colour])
    draw = ImageDraw.Draw(image)
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "square":
        draw.rectangle(box, fill=fill)
    elif kind == "circle":
        draw.ellipse(box, fill=fill)
    else:
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=fill)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def page(
    lines: Sequence[str], *, size: int = 28, width: int = 0, ink: Any = "black", paper: Any = "white"
) -> Image.Image:
    """Lines of text below each other."""
    font = ImageFont.truetype(FONT, size)
    width = width or int(max(font.getlength(line) for line in lines)) + 40
    image = Image.new("RGB", (width, int(len(lines) * size * 1.6) + 40), paper)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * size * 1.6), line, font=font, fill=ink)
    return image


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bare(data: bytes) -> str:
    """As base64."""
    return base64.b64encode(data).decode()


def uri(data: bytes, claim: str = "image/png") -> str:
    """As a data URI."""
    return f"data:{claim};base64,{bare(data)}"
