"""Prompts as the vectors that a model paints from: runs in a worker process."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Encoded(Struct, frozen=True):
    """A prompt and its negative, read."""

    arguments: dict[str, Any]
    """For the call of the pipeline."""
    warnings: tuple[str, ...] = ()


def encoded(pipe: Any, prompt: str, negative: str, *, clip_skip: int | None, guided: bool) -> Encoded:
    """Read both. ``clip_skip`` counts as A1111's; ``guided``: whether the negative prompt matters."""
    del pipe, guided
    skip = max(0, (clip_skip or 2) - 2)
    return Encoded({"prompt": prompt, "negative_prompt": negative or None, "clip_skip": skip or None})
