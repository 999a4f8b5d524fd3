"""Painting itself, through diffusers: runs in a worker process. Torch and diffusers take 5 s and 370 MB to import.

They are kept from the network, and from any code that lies beside the weights.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

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
from msgspec import Struct

from adapters.recipe import in_png
from backends.diffusers import loading, placing, prompts, samplers
from backends.diffusers.asking import Asked, Drawn, Stepped
from backends.diffusers.canvas import Canvas
from backends.diffusers.decoder import Decoder
from backends.diffusers.lora.stack import Stack
from backends.diffusers.pictures import png, seen
from backends.diffusers.previews import Guess, Previews
from backends.diffusers.references import References
from backends.diffusers.start import Start
from backends.diffusers.tasks import Task, sharing
from backends.seeing.device import device, dtype
from canonical.painting import Paint, alone

Tell = Callable[[Stepped | Drawn | None], None]
"""Passes on what is done, or nothing as a sign of life; raises once nobody wants it any more."""

MASKED = 9
"""Channels that a UNet reads which was made for masks: the picture, what stays of it, and where that is."""
_PARTS = (torch.nn.Conv2d, torch.nn.Linear)
"""Of a step, between which it can be left: one of a large picture takes a processor minutes, its autoencoder too."""


def starved(error: BaseException) -> bool:
    """Whether memory has run out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "alloc" in str(error).lower()


class _Work(Struct, frozen=True):
    """What the pictures of one request have in common."""

    canvas: Canvas
    arguments: dict[str, Any]
    """Its prompts, and what it takes after, for the call of a pipeline."""
    warnings: tuple[str, ...]
    previews: int
    tell: Tell


class Painter:
    """One loaded model."""

    def __init__(self, start: Start, far: Callable[[float], bool]) -> None:
        self._place = device(start.device)
        placing.settle(start, self._place)
        pipe = loading.pipeline(start, dtype(start.dtype, self._place))
        far(0.9)
        pipe.set_progress_bar_config(disable=True)
        self._original = dict(pipe.scheduler.config)
        placing.placed(pipe, start, self._place)
        self._pipe = pipe
        self._numbers = pipe.vae.dtype
        self._pipes: dict[Task, Any] = {}
        self._stack = Stack(pipe)
        self._references = References(pipe, start.ip_adapter)
        self._decoder = Decoder(pipe.vae)
        self._previews = Previews(self._decoder, start.previews, self._place)
        self._glance: Callable[[], None] = lambda: None
        if not (start.compile and self._place == "cuda"):  # what is compiled cannot be looked into
            for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
                self._watch(getattr(pipe, part, None))

    def paint(self, asked: Asked, tell: Tell) -> None:
        """Paint what is asked, one picture after the other.

        Raises:
            Wrong: what was sent cannot be painted.
        """
        request = asked.request
        self._glance = lambda: tell(None)
        self._glance()
        with torch.no_grad():
            self._stack.lay(asked.loras, self._glance)
            canvas = Canvas.of(request, masked=self._pipe.unet.config.in_channels == MASKED)
            with self._taking_after(request) as more:
                read = prompts.encoded(
                    self._pipe,
                    request.prompt,
                    request.negative_prompt,
                    clip_skip=request.clip_skip,
                    guided=(request.guidance_scale or 0) > 1,
                )
                work = _Work(canvas, {**read.arguments, **more}, read.warnings, request.previews, tell)
                for index in range(request.n):
                    tell(self._one(alone(request, index), index, work))

    def clear(self) -> None:
        """After each request: give back what it took, whatever became of it."""
        self._glance = lambda: None
        if self._pipe.vae.dtype != self._numbers:  # it was left while it computed in wider ones
            self._pipe.vae.to(dtype=self._numbers)
        for pipe in self._pipes.values():
            pipe.scheduler = self._pipe.scheduler
        self._pipe.maybe_free_model_hooks()
        if self._place != "cpu":
            getattr(torch, self._place).empty_cache()

    def _one(self, made: Paint, index: int, work: _Work) -> Drawn:
        pipe, canvas = self._of(work.canvas.kind), work.canvas
        pipe.scheduler = samplers.scheduler(made.sampler or "", self._original)
        guess = Guess(pipe.scheduler)
        torch.manual_seed(made.seed or 0)  # for whatever there is that takes no generator

        def stepped(pipe: Any, step: int, timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
            del timestep
            done, total = step + 1, int(pipe.num_timesteps)
            preview = b""
            if self._previews.due(done, total, work.previews):
                preview = png(self._previews.of(guess.last(kept["latents"]), canvas))
            work.tell(Stepped(done, total, index, preview))
            return {}

        asked = {
            **work.arguments,
            **canvas.arguments(made),
            "num_inference_steps": made.steps,
            "guidance_scale": made.guidance_scale,
            "guidance_rescale": made.guidance_rescale or 0.0,
            "generator": torch.Generator("cpu").manual_seed(made.seed or 0),  # the same noise on every device
            "output_type": "latent",
            "callback_on_step_end": stepped,
        }
        known = inspect.signature(pipe.__call__).parameters
        lost = bool(made.guidance_rescale) and "guidance_rescale" not in known
        warned = ("guidance_rescale has no effect on what this model paints over",) if lost else ()
        latents = pipe(**{name: value for name, value in asked.items() if name in known}).images
        image = canvas.finished(self._decoder.image(latents))
        return Drawn(index, in_png(png(image), made), (*work.warnings, *warned))

    def _taking_after(self, request: Paint) -> AbstractContextManager[dict[str, Any]]:
        if request.reference is None:
            return nullcontext({})
        picture = seen(request.reference, "reference")
        guided = (request.guidance_scale or 0) > 1
        return self._references.worn(picture, request.reference_scale or 0.0, guided=guided)

    def _of(self, kind: Task) -> Any:
        """The pipeline for text alone, for a picture to start from, or for one with a mask; all of the same weights."""
        if kind not in self._pipes:
            self._pipes[kind] = sharing(self._pipe, kind)
        return self._pipes[kind]

    def _watch(self, part: torch.nn.Module | None) -> None:
        for block in part.modules() if part is not None else ():
            if isinstance(block, _PARTS):
                block.register_forward_pre_hook(lambda *_: self._glance())
