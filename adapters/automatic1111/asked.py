"""``/sdapi/v1/txt2img`` and ``img2img``: bytes -> what is to be painted.

{"prompt":"a red cube <lora:night:0.8>","steps":20,"width":512,"height":512,"seed":-1,"sampler_name":"Euler a"}

What a request leaves open is as the model's preset says, not as A1111 has it: 50 steps would spoil a turbo.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct, structs

from adapters.automatic1111 import fields, wire
from adapters.reading import fault_of, read_body
from adapters.recipe import read_a1111
from adapters.recipe.samplers import a1111_sampler, our_sampler
from adapters.recipe.tags import without_tags
from canonical.errors import InvalidRequest
from canonical.media import PICTURES, image_from_base64
from canonical.painting import PICTURES as MOST
from canonical.painting import Offer, Paint
from canonical.report import Report

PREVIEWS = 4
"""Half-finished pictures on the way of each: clients ask for them every second."""
STRENGTH = 0.75
"""How much of a picture is given up where nothing is said."""
TEXT = 100_000
"""Characters of a prompt with its tags, and of a recipe: millions of tags would be read for seconds."""
_OWN = frozenset(("automatic", "uniform", "normal"))
"""Schedules that are the sampler's own."""
_ENDING = re.compile(r"\.(safetensors|ckpt|pt|gguf)$", re.IGNORECASE)
_HASH = re.compile(r"\s*\[[0-9a-f]{6,64}\]$", re.IGNORECASE)

_text = msgspec.json.Decoder(wire.TextToImage, strict=False)
_image = msgspec.json.Decoder(wire.ImageToImage, strict=False)
_said = msgspec.json.Decoder(dict[str, Any])


class Ask(Struct, frozen=True, kw_only=True):
    """A request that was read."""

    request: Paint
    report: Report
    echo: dict[str, Any]
    """Its fields as they are told back: without pictures, and without what A1111 does not know."""
    per_batch: int
    sampler: str
    """A1111's name of it and of its schedule, as they came; empty: nothing was said."""
    schedule: str
    send: bool


def read_txt2img(body: bytes) -> Ask:
    """``POST /sdapi/v1/txt2img``. Raises InvalidRequest."""
    return _ask(read_body(_text, body, wrong), read_body(_said, body, wrong))


def read_img2img(body: bytes) -> Ask:
    """``POST /sdapi/v1/img2img``. Raises InvalidRequest."""
    asked = read_body(_image, body, wrong)
    if not asked.init_images:
        raise InvalidRequest("init_images: Init image not found", param="init_images")
    if len(asked.init_images) > 1:
        raise InvalidRequest("init_images: one picture at a time", param="init_images")
    ask = _ask(asked, read_body(_said, body, wrong))
    strength = asked.denoising_strength
    if strength is None:
        strength = ask.request.strength
    return structs.replace(
        ask,
        request=structs.replace(
            ask.request,
            image=image_from_base64(asked.init_images[0], param="init_images", types=PICTURES),
            mask=image_from_base64(asked.mask, param="mask", types=PICTURES) if asked.mask else None,
            mask_invert=bool(asked.mask and asked.inpainting_mask_invert),
            strength=STRENGTH if strength is None else strength,
        ),
    )


def _ask(asked: wire.TextToImage | wire.ImageToImage, said: dict[str, Any]) -> Ask:
    with_picture = isinstance(asked, wire.ImageToImage)
    for name in ("prompt", "infotext"):
        if len(getattr(asked, name) or "") > TEXT:
            raise InvalidRequest(f"{name} may have at most {TEXT} characters", param=name)
    base = read_a1111(asked.infotext) if asked.infotext else Paint(prompt="")
    settings = asked.override_settings or {}
    prompt, loras = without_tags(asked.prompt) if asked.prompt is not None else (base.prompt, base.loras)
    batch, rounds = asked.batch_size or 1, asked.n_iter or 1
    if batch * rounds > MOST:
        raise InvalidRequest(f"batch_size times n_iter may be at most {MOST}, not {batch * rounds}", param="batch_size")
    checkpoint = settings.get("sd_model_checkpoint")
    sampler = asked.sampler_name or asked.sampler_index or ""
    request = Paint(
        prompt=prompt,
        negative_prompt=base.negative_prompt if asked.negative_prompt is None else asked.negative_prompt,
        model=checkpoint if isinstance(checkpoint, str) else base.model,
        loras=loras,
        steps=base.steps if asked.steps is None else asked.steps,
        guidance_scale=base.guidance_scale if asked.cfg_scale is None else asked.cfg_scale,
        guidance_rescale=base.guidance_rescale,
        seed=base.seed if asked.seed is None else None if asked.seed < 0 else asked.seed,
        width=base.width if asked.width is None else asked.width,
        height=base.height if asked.height is None else asked.height,
        sampler=our_sampler(sampler, asked.scheduler or "") if sampler else base.sampler,
        clip_skip=clip_skip_of(settings.get("CLIP_stop_at_last_layers")) or base.clip_skip,
        strength=base.strength if with_picture else None,
        n=batch * rounds,
        previews=PREVIEWS,
    )
    near = fields.approximated(said, mask=bool(said.get("mask"))) if with_picture else {}
    told = Report(tuple(fields.honoured(said, picture=with_picture)), near, tuple(fields.dropped(said)))
    echo = (
        msgspec.to_builtins(asked) | {"init_images": None, "mask": None} if with_picture else msgspec.to_builtins(asked)
    )
    return Ask(
        request=request,
        report=told,
        echo=echo,
        per_batch=batch,
        sampler=sampler,
        schedule=asked.scheduler or "",
        send=asked.send_images is not False,
    )


def fitting(ask: Ask, offer: Offer) -> Ask:
    """``ask`` in the names of what the model has: adapters by their titles, too, and a sampler without a schedule that it lacks."""
    known = {lora.id for lora in offer.loras}
    titles = {lora.title.casefold(): lora.id for lora in offer.loras}
    loras = tuple(
        lora if lora.name in known else structs.replace(lora, name=titles.get(lora.name.casefold(), lora.name))
        for lora in ask.request.loras
    )
    return _sampled(structs.replace(ask, request=structs.replace(ask.request, loras=loras)), offer)


def _sampled(ask: Ask, offer: Offer) -> Ask:
    """``ask`` with a sampler that the model has: one that has no such schedule is taken with its own, and the report says so."""
    if not ask.sampler or ask.request.sampler in offer.samplers:
        return ask
    plain = our_sampler(ask.sampler)
    method = our_sampler(a1111_sampler(plain)[0])
    near = next((name for name in (plain, method) if name in offer.samplers), None)
    told = ask.report
    if near is None and offer.samplers:
        return ask  # whoever takes the job says which there are
    if near is None:
        told = structs.replace(told, dropped=(*told.dropped, "sampler_name"))
    elif near != plain or ask.schedule.casefold() not in _OWN:
        field = "sampler_name" if near != plain else "scheduler"
        told = Report(
            tuple(name for name in told.honoured if name != field),
            {**told.approximated, field: "the sampler does not know this schedule, and has its own"},
            told.dropped,
        )
    return structs.replace(ask, request=structs.replace(ask.request, sampler=near), report=told)


def spellings(checkpoint: str) -> tuple[str, ...]:
    """Names under which a model may be meant by what a client calls it: ``name.safetensors [1a2b3c4d5e]`` and less of that."""
    bare = _HASH.sub("", checkpoint).strip()
    return tuple(dict.fromkeys((checkpoint, bare, _ENDING.sub("", bare))))


def clip_skip_of(value: Any) -> int | None:
    """What ``CLIP_stop_at_last_layers`` means: 1 is what everybody sends who wants nothing special. Raises InvalidRequest."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 12:
        raise InvalidRequest("CLIP_stop_at_last_layers must be from 1 to 12", param="CLIP_stop_at_last_layers")
    return int(value) if value > 1 else None


def wrong(text: str) -> InvalidRequest:
    """What a decoder found wrong with a body, in words that name the field."""
    fault = fault_of(text)
    words = "this is required" if fault.missing else fault.words
    return InvalidRequest(f"{fault.path}: {words}" if fault.path else words, param=fault.path or None)
