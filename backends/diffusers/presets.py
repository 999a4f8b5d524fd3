"""What a request leaves open, filled in from a model's preset; and what of it cannot be. In the gateway's process, without torch."""

from __future__ import annotations

import math

from msgspec import structs

from backends.diffusers.catalog import Known
from backends.diffusers.samplers import SAMPLERS, known, own
from backends.diffusers.settings import PainterSettings, preset
from backends.diffusers.sizes import size
from canonical.errors import InvalidRequest, NotFound
from canonical.painting import Lora, Offer, Paint, nearest

SIDES = {"sdxl": 1024, "sd2": 768, "sd1": 512}
"""Pixels that a family was made for, where a model does not say."""
STEPS, GUIDANCE = 30, {"sdxl": 5.0}
QUICK_STEPS = 4
"""Of models that were taught to do with few, and without guidance."""
STRENGTH, MASKED = 0.6, 1.0
TAKEN_AFTER = 0.6


def offer(model: Known, settings: PainterSettings) -> Offer:
    """What a model lets one choose."""
    return Offer(
        preset=_preset(model),
        samplers=SAMPLERS,
        loras=tuple(file.info for file in model.loras.values() if not file.trouble),
        max_pixels=_most(model, settings),
        references=bool(model.settings.ip_adapter),
    )


def prepared(model: Known, settings: PainterSettings, request: Paint) -> Paint:
    """The request, complete but for its seed.

    Raises:
        NotFound, InvalidRequest.
    """
    usual = _preset(model)
    _check_inputs(model, request)
    assert usual.width is not None
    assert usual.height is not None
    width, height = size(request, (usual.width, usual.height), _most(model, settings))
    steps = usual.steps if request.steps is None else request.steps
    assert steps is not None
    return structs.replace(
        request,
        prompt=_prefixed(request.prompt, usual.prompt),
        negative_prompt=request.negative_prompt or usual.negative_prompt,
        loras=_stack(request, model),
        steps=steps,
        guidance_scale=usual.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        guidance_rescale=usual.guidance_rescale if request.guidance_rescale is None else request.guidance_rescale,
        clip_skip=usual.clip_skip if request.clip_skip is None else request.clip_skip,
        sampler=_sampler(request.sampler) or usual.sampler,
        width=width,
        height=height,
        strength=_strength(request, usual, steps),
        reference_scale=_scale(request),
    )


def _preset(model: Known) -> Paint:
    """As the configuration says, or else the model's files, or else its family."""
    said, scheduler = preset(model.settings), model.of.scheduler
    side = model.of.side or SIDES.get(model.of.family, 512)
    # Models that paint in a few steps are told by nothing else than how their sampler spaces them.
    quick = scheduler.get("timestep_spacing") == "trailing" and "Ancestral" in str(scheduler.get("_class_name"))
    guidance = 0.0 if quick else GUIDANCE.get(model.of.family, 7.0)
    return structs.replace(
        said,
        sampler=said.sampler or own(scheduler),
        steps=said.steps or (QUICK_STEPS if quick else STEPS),
        guidance_scale=guidance if said.guidance_scale is None else said.guidance_scale,
        width=said.width or side,
        height=said.height or side,
    )


def _most(model: Known, settings: PainterSettings) -> int:
    return model.settings.max_pixels or settings.max_pixels


def _check_inputs(model: Known, request: Paint) -> None:
    if model.of.task != "text" and request.image is None:
        raise InvalidRequest(f"{model.info.id!r} only paints over pictures: it needs one to start from", param="image")
    if request.reference is not None and not model.settings.ip_adapter:
        raise InvalidRequest(f"{model.info.id!r} takes after no pictures: it has no IP-Adapter", param="reference")


def _prefixed(prompt: str, prefix: str) -> str:
    """With the prefix, unless it has been put there: the recipe of a picture is a request that gives it again."""
    first = prefix.partition(",")[0].strip().casefold()
    if not first or first in prompt.casefold():
        return prompt
    return f"{prefix.rstrip(', ')}, {prompt}" if prompt else prefix


def _stack(request: Paint, model: Known) -> tuple[Lora, ...]:
    """The adapters under their own names, each once, always in the same order: sums depend on it in their last digit."""
    spelled = {id.casefold(): id for id in model.loras}
    found: dict[str, Lora] = {}
    for lora in request.loras:
        id = lora.name if lora.name in model.loras else spelled.get(lora.name.removesuffix(".safetensors").casefold())
        if id is None:
            raise NotFound(
                f"there is no LoRA {lora.name[:80]!r} here{nearest(lora.name, [one for one, file in model.loras.items() if not file.trouble])}",
                param="loras",
            )
        if id in found:
            raise InvalidRequest(f"the LoRA {id!r} stands twice", param="loras")
        if model.loras[id].trouble:
            raise InvalidRequest(f"the LoRA {id!r} cannot be used: {model.loras[id].trouble}", param="loras")
        weight = model.loras[id].info.default_weight if lora.weight is None else lora.weight
        found[id] = Lora(id, weight)
    return tuple(found[id] for id in sorted(found))


def _sampler(name: str | None) -> str | None:
    if name is None:
        return None
    meant = known(name)
    if meant is None:
        raise InvalidRequest(f"there is no sampler {name[:80]!r}{nearest(name, SAMPLERS)}", param="sampler")
    return meant


def _strength(request: Paint, preset: Paint, steps: int) -> float | None:
    if request.image is None:
        return None
    usual = MASKED if request.mask is not None else preset.strength or STRENGTH
    strength = usual if request.strength is None else request.strength
    if int(steps * strength) >= 1:
        return strength
    if request.strength is None:
        return 1.0  # of one step all is needed
    least = math.ceil(1000 / steps) / 1000
    raise InvalidRequest(
        f"with a strength of {strength:g} not one of {steps} steps is left: it has to be at least {least:g}, or more steps",
        param="strength",
    )


def _scale(request: Paint) -> float | None:
    if request.reference is None:
        return None
    return TAKEN_AFTER if request.reference_scale is None else request.reference_scale
