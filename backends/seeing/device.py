"""Where torch computes, and in what numbers: runs in worker processes."""

from __future__ import annotations

import torch


def device(wanted: str) -> str:
    """The device there is. Raises ValueError: it is not the one that is wanted."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: torch finds no such GPU here")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: torch finds no such GPU here")
    return wanted


def dtype(wanted: str, place: str) -> torch.dtype:
    """The kind of numbers. Half precision is for GPUs; on a processor 16-bit floats take five times as long."""
    if wanted == "auto":
        return torch.float32 if place == "cpu" else torch.float16
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[wanted]
