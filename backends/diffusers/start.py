"""What a worker that paints is started for, and what it is told to lay over its model."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Device = Literal["auto", "cpu", "cuda", "mps"]
Type = Literal["auto", "float32", "float16", "bfloat16"]
Previews = Literal["auto", "fast", "full"]
Offload = Literal["none", "model", "sequential"]


class Start(Struct, frozen=True, kw_only=True):
    """One model, and how it runs. Paths are whole; empty: there is none."""

    path: str
    """A folder of diffusers, or one safetensors file."""
    variant: str = ""
    """What stands in the names of its weights: ``fp16``."""
    config: str = ""
    """For a single file: the folder that tells how it is built and how it reads."""
    vae: str = ""
    """A folder or a file, in place of its own."""
    ip_adapter: str = ""
    device: Device = "auto"
    dtype: Type = "auto"
    threads: int = 1
    nice: int = 0
    offload: Offload = "none"
    vae_tiling: bool = False
    vae_slicing: bool = False
    attention_slicing: bool = False
    channels_last: bool = False
    compile: bool = False
    previews: Previews = "auto"


class Laid(Struct, frozen=True, kw_only=True):
    """An adapter that is to lie over the model."""

    name: str
    """For messages."""
    path: str
    weight: float
