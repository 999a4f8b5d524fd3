"""Painting itself, through diffusers: runs in a worker process. Torch and diffusers take 5 s and 370 MB to import.

They are kept from the network, and from any code that lies beside the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    DIFFUSERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
    DIFFUSERS_VERBOSITY="error",
    CUBLAS_WORKSPACE_CONFIG=":4096:8",  # without it the sums of a GPU come out differently each time
)

import torch

from backends.diffusers import loading, placing
from backends.diffusers.asking import Asked, Drawn, Stepped
from backends.diffusers.references import References
from backends.diffusers.stack import Stack
from backends.diffusers.start import Start
from canonical.painting import Paint, alone

Tell = Callable[[Stepped | Drawn | None], None]


def starved(error: BaseException) -> bool:
    """Whether memory has run out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error).lower()


class Painter:
    """One loaded model."""

    def __init__(self, start: Start, far: Callable[[float], bool]) -> None:
        self._start = start
        self._device = placing.device(start.device)
        placing.settle(start, self._device)
        pipe = loading.pipeline(start, placing.dtype(start.dtype, self._device))
        far(0.8)
        pipe.set_progress_bar_config(disable=True)
        self._original = dict(pipe.scheduler.config)
        placing.placed(pipe, start, self._device)
        self._pipe = pipe
        self._stack = Stack(pipe)
        self._references = References(pipe, start.ip_adapter)

    def paint(self, asked: Asked, tell: Tell) -> None:
        """Paint what is asked, one picture after the other.

        Raises:
            Wrong: what was sent cannot be painted.
            Left: nobody wants it any more.
        """
        self._stack.lay(asked.loras)
        for index in range(asked.request.n):
            self._one(alone(asked.request, index), index, asked.request.previews, tell)

    def clear(self) -> None:
        """After each request: give back what it took on a GPU."""
        self._pipe.maybe_free_model_hooks()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def _one(self, made: Paint, index: int, previews: int, tell: Tell) -> None:
        raise NotImplementedError
