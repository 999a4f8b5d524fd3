r"""``/sdapi/v1``: what came of a request, how far it is, and what there is -> bytes.

{"images":["iVBORw0..."],"parameters":{...},"info":"{\"all_seeds\": [42], \"infotexts\": [...]}"}
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from adapters.automatic1111 import fields, wire
from adapters.automatic1111.asked import Ask, wrong
from adapters.reading import read_body
from adapters.recipe import of_png
from adapters.recipe.parameters import parameters
from adapters.recipe.samplers import AUTOMATIC, a1111_sampler
from adapters.recipe.tags import with_tags
from canonical.media import Blob, image_from_base64
from canonical.models import ModelInfo
from canonical.painting import LoraInfo, Offer, Paint
from canonical.report import Report

_choice = msgspec.json.Decoder(wire.Choice, strict=False)
_said = msgspec.json.Decoder(dict[str, Any])
_picture = msgspec.json.Decoder(wire.PictureAsked)
_encode = msgspec.json.Encoder().encode


class Picture(Struct, frozen=True):
    """A picture that is done."""

    image: Blob
    made: Paint
    warnings: tuple[str, ...] = ()


def generated(ask: Ask, request: Paint, pictures: Sequence[Picture], created: float) -> bytes:
    """The answer. ``request`` is the complete one; there may be fewer pictures than it asks for, where it was interrupted."""
    images = [picture.image.base64() for picture in pictures] if ask.send else []
    return _encode(wire.Generated(images=images, parameters=ask.echo, info=_info(ask, request, pictures, created)))


def _info(ask: Ask, request: Paint, pictures: Sequence[Picture], created: float) -> str:
    seeds = [picture.made.seed for picture in pictures]
    sampler, schedule = a1111_sampler(request.sampler or "")
    prompt = with_tags(request.prompt, request.loras)
    told: dict[str, Any] = {
        "prompt": prompt,
        "all_prompts": [prompt] * len(pictures),
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * len(pictures),
        "seed": request.seed,
        "all_seeds": seeds,
        "subseed": request.seed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": request.width,
        "height": request.height,
        "sampler_name": sampler,
        "cfg_scale": request.guidance_scale,
        "steps": request.steps,
        "batch_size": ask.per_batch,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": request.model,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.strength,
        "extra_generation_params": {"Schedule type": schedule},
        "index_of_first_image": 0,
        "infotexts": [of_png(picture.image.data).text for picture in pictures],
        "styles": [],
        "job_timestamp": _stamp(created),
        "clip_skip": request.clip_skip or 1,
        "is_using_inpainting_conditioning": False,
        "version": "dragoman",
    }
    warnings = list(dict.fromkeys(words for picture in pictures for words in picture.warnings))
    notes = [*warnings, *(f"{name}: {words}" for name, words in ask.report.approximated.items())]
    notes += [f"{name}: this has no effect here" for name in ask.report.dropped]
    if notes:
        told["comments"] = notes
    return json.dumps(told)


class Running(Struct, frozen=True, kw_only=True):
    """A job of the caller's that is not over."""

    id: str
    created: float
    count: int
    """Pictures of it."""
    index: int
    """Which is painted."""
    done: int
    """Steps of all its pictures."""
    total: int
    eta: float
    waiting: str
    """What it waits for; empty: it runs."""
    preview: Blob | None


def progress(job: Running | None, *, skip_image: bool = False) -> bytes:
    """The answer of ``/sdapi/v1/progress``; without a job there is nothing to do."""
    if job is None:
        return _encode(wire.Progress(state=wire.State()))
    each = job.total // job.count
    state = wire.State(
        job=job.id,
        job_count=job.count,
        job_timestamp=_stamp(job.created),
        job_no=job.index,
        sampling_step=max(0, min(each, job.done - job.index * each)),
        sampling_steps=each,
    )
    # Clients take 0 for a server that has nothing to do.
    share = max(0.01, min(1.0, job.done / job.total)) if job.total and not job.waiting else 0.01
    shown = None if skip_image or job.preview is None else job.preview.base64()
    return _encode(
        wire.Progress(
            progress=share,
            eta_relative=max(0.0, job.eta),
            state=state,
            current_image=shown,
            textinfo=job.waiting or None,
        )
    )


def skips_image(query: bytes) -> bool:
    """Whether ``/sdapi/v1/progress`` is asked for figures alone."""
    values = parse_qs(query.decode("latin-1")).get("skip_current_image", [""])
    return values[-1].casefold() in {"true", "1", "yes", "on"}


def models(rows: Iterable[ModelInfo]) -> bytes:
    """The checkpoints. Their titles are what other requests call them."""
    return _encode([wire.Checkpoint(title=row.id, model_name=row.id, filename=row.id) for row in rows])


def samplers(offer: Offer | None) -> bytes:
    """The samplers, each once, whatever schedules it knows."""
    found: dict[str, list[str]] = {}
    for name in offer.samplers if offer else ():
        found.setdefault(a1111_sampler(name)[0], []).append(name)
    return _encode(
        [wire.Sampler(name=text, aliases=[f"k_{names[0]}", *names[:1]], options={}) for text, names in found.items()]
    )


def schedulers(offer: Offer | None) -> bytes:
    """The schedules that some sampler knows."""
    labels = [AUTOMATIC, *(a1111_sampler(name)[1] for name in (offer.samplers if offer else ()))]
    return _encode(
        [wire.Scheduler(name=label.casefold().replace(" ", "_"), label=label) for label in dict.fromkeys(labels)]
    )


def loras(found: Iterable[LoraInfo]) -> bytes:
    """The adapters."""
    return _encode(
        [
            wire.Lora(
                name=lora.id,
                alias=lora.title or lora.id,
                path="",
                metadata={
                    "kind": lora.kind,
                    "preferred_weight": lora.default_weight,
                    "trigger_words": list(lora.trigger_words or ()),
                },
            )
            for lora in found
        ]
    )


def upscalers() -> bytes:
    """That pictures stay as large as they are is the only way there is."""
    return _encode([wire.Upscaler(name="None")])


def read_options(body: bytes) -> tuple[wire.Choice, Report]:
    """``POST /sdapi/v1/options``: what is chosen, and what becomes of all that is said. Raises InvalidRequest."""
    choice, said = read_body(_choice, body, wrong), read_body(_said, body, wrong)
    made = tuple(name for name in fields.READ_SETTINGS if said.get(name) is not None)
    return choice, Report(made, {}, tuple(fields.dropped_settings(said)))


def options(chosen: wire.Choice) -> bytes:
    """The answer of ``GET /sdapi/v1/options``."""
    skip = chosen.CLIP_stop_at_last_layers or 1
    return _encode(wire.Options(sd_model_checkpoint=chosen.sd_model_checkpoint, CLIP_stop_at_last_layers=skip))


def png_info(body: bytes) -> bytes:
    """``POST /sdapi/v1/png-info``. Raises InvalidRequest."""
    asked = read_body(_picture, body, wrong)
    found = of_png(image_from_base64(asked.image, param="image").data)
    items = dict(found.others)
    if found.json:
        items["dragoman"] = found.json.decode()
    told = parameters(found.text) if found.text else {}
    return _encode(wire.PictureTold(info=found.text, items=items, parameters=told))


def embeddings() -> bytes:
    """There are none."""
    return _encode(wire.Embeddings(loaded={}, skipped={}))


def scripts() -> bytes:
    """There are none."""
    return _encode(wire.Scripts(txt2img=[], img2img=[]))


def flags() -> bytes:
    """Of A1111's command line."""
    return _encode(wire.Flags())


def memory(total: float, free: float) -> bytes:
    """The answer of ``/sdapi/v1/memory``, in bytes."""
    known = total < math.inf and free < math.inf
    ram = {"free": int(free), "used": int(max(0.0, total - free)), "total": int(total)} if known else {}
    return _encode(wire.Memory(ram=ram, cuda={"error": "unavailable"}))


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))
