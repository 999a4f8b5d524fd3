"""How a pipeline computes, and how it makes do with little memory: runs in a worker process."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch

from backends.diffusers.start import Start


def settle(start: Start, place: str) -> None:
    """Have torch compute the same each time, in as many threads as it may have, after everybody else."""
    torch.set_num_threads(start.threads)
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    if start.nice and place == "cpu":
        with contextlib.suppress(OSError, AttributeError):  # not everywhere
            os.nice(start.nice)


def placed(pipe: Any, start: Start, place: str) -> None:
    """Put a pipeline where it computes, with what saves memory."""
    if start.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    if start.vae_tiling:
        pipe.vae.enable_tiling()
    if start.vae_slicing:
        pipe.vae.enable_slicing()
    if start.attention_slicing:
        pipe.enable_attention_slicing()
    offloaded(pipe, start, place)
    if start.compile and place == "cuda":
        pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead")


def offloaded(pipe: Any, start: Start, place: str) -> None:
    """Put the parts of one pipeline on the device, or have them brought there when they compute."""
    if place == "cpu" or start.offload == "none":
        pipe.to(place)  # without an accelerator there is nothing to be moved away from
    elif start.offload == "model":
        pipe.enable_model_cpu_offload(device=place)
    else:
        pipe.enable_sequential_cpu_offload(device=place)
