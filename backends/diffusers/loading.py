"""A pipeline from its files: runs in a worker process. Nothing is fetched, and no code that lies beside the weights runs."""

from __future__ import annotations

from typing import Any

import torch

from backends.diffusers.start import Start


def pipeline(start: Start, dtype: torch.dtype) -> Any:
    """The text-to-image pipeline of a model, in memory, not yet on its device.

    Raises:
        ValueError: it cannot be loaded as it is; in words.
    """
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        start.path,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **({"variant": start.variant} if start.variant else {}),
    )
