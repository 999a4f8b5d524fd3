"""The pipelines that share one model's parts: of words alone, of a picture, of a picture and a mask. Runs in a worker process."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import StableDiffusionImg2ImgPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
    StableDiffusionXLInpaintPipeline,
)

Task = Literal["text", "image", "mask"]

_OLD: dict[Task, Any] = {
    "text": StableDiffusionPipeline,
    "image": StableDiffusionImg2ImgPipeline,
    "mask": StableDiffusionInpaintPipeline,
}
_XL: dict[Task, Any] = {
    "text": StableDiffusionXLPipeline,
    "image": StableDiffusionXLImg2ImgPipeline,
    "mask": StableDiffusionXLInpaintPipeline,
}


def sharing(pipe: Any, task: Task) -> Any:
    """The pipeline for a task, of the same parts as another: nothing is copied, and nothing moved or cast as diffusers' own way does."""
    kind = (_XL if "text_encoder_2" in pipe.components else _OLD)[task]
    said = {name: value for name, value in pipe.config.items() if isinstance(value, bool)}
    parts = {**said, **pipe.components, "add_watermarker": False, "safety_checker": None}
    parts |= {"requires_safety_checker": False}
    wanted = inspect.signature(kind.__init__).parameters
    made = kind(**{name: part for name, part in parts.items() if name in wanted})
    made.set_progress_bar_config(disable=True)
    return made
