"""Adapters over a pipeline: runs in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.diffusers.start import Laid
from backends.seeing.serving import Wrong


class Stack:
    """What lies over one pipeline."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def lay(self, loras: Sequence[Laid]) -> None:
        """Have exactly these lie over it, whatever lay there before.

        Raises:
            Wrong: one does not fit, or cannot be read.
        """
        if loras:
            raise Wrong("no LoRA can be laid over a model yet", "loras")
