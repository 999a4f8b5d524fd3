"""Us as the image-job API: jobs told in Celery's words, and what there is. ``asked`` reads the requests.

{"job_id":"7f2b0887-...","state":"PROGRESS","status":"processing","meta":{"current":15,"total":30,"percent":50},"result":null,...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from adapters.framing import encode_line
from adapters.images import wire
from adapters.images.seen import STATES, STATUSES, Made, Seen
from adapters.ollama.times import rfc3339
from adapters.recipe import LEFT_OUT, fitting, json_of
from canonical.media import Blob
from canonical.models import ModelInfo
from canonical.painting import LoraInfo, Offer, Paint

_MESSAGES = {"queued": "Image en file d'attente"}
MESSAGE = "Image en cours de génération"
CANCELLED = "the job was cancelled"
_encode = msgspec.json.Encoder().encode


def job_reply(job: Seen) -> bytes:
    """One job."""
    return _encode(_told(job))


def jobs_reply(jobs: Sequence[Seen], following: str | None) -> bytes:
    """A page of jobs; ``following``: what the next one is asked for with."""
    return _encode(wire.JobList(jobs=[_told(job) for job in jobs], next=following))


def removed_reply(id: str) -> bytes:
    """A job is gone."""
    return _encode(wire.Removed(job_id=id))


def processing_reply(job: Seen) -> bytes:
    """There is no picture yet."""
    message = _MESSAGES.get(job.state, MESSAGE)
    return _encode(wire.Processing(message=message, state=STATES[job.state], meta=_meta(job)))


def failed_reply(job: Seen) -> bytes:
    """There will be no picture."""
    if job.state == "cancelled":
        return _encode(wire.Failed(status="cancelled", error=CANCELLED))
    return _encode(wire.Failed(status="failed", error=_clean(job.error) or "it failed"))


def event(job: Seen, preview: Blob | None = None, index: int = 0) -> bytes:
    """A job as an event of a stream. Its id changes whenever something is to be seen."""
    told = _told(job)
    fields = {name: getattr(told, name) for name in wire.Job.__struct_fields__}
    frame = wire.Event(**fields) if preview is None else wire.Event(**fields, preview=preview.data_url(), index=index)
    return b"id: %b\ndata: %b\n\n" % (event_id(job), encode_line(frame))


def event_id(job: Seen) -> bytes:
    """What a client tells that comes back."""
    return b"%d-%b" % (job.done, STATES[job.state].encode())


def metadata_header(told: bytes, made: Paint, whole: str) -> bytes:
    """``X-Generation-Metadata``: the recipe that stands in the picture, else what it was made from.

    One that is too long for a header goes without its prompts, and says where they are.
    """
    if told == b"{}":  # it is no PNG
        told = fitting(json_of(made))
    fields = msgspec.json.decode(told) if LEFT_OUT.encode() in told else {}
    if LEFT_OUT not in fields:
        return told
    return json.dumps({**fields, "whole": whole}, separators=(",", ":")).encode()


def models_reply(rows: Sequence[wire.Model]) -> bytes:
    """The models that paint."""
    return _encode(wire.ModelList(models=list(rows)))


def model_row(info: ModelInfo, offer: Offer | None, *, loaded: bool) -> wire.Model:
    """One model that paints, and what it lets one choose."""
    preset = Paint(prompt="") if offer is None else offer.preset
    return wire.Model(
        id=info.id,
        name=info.title or info.id,
        supported_loras=list(info.loras) if offer is None else [lora.id for lora in offer.loras],
        loaded=loaded,
        samplers=[] if offer is None else list(offer.samplers),
        defaults=wire.Defaults(
            steps=preset.steps,
            guidance_scale=preset.guidance_scale,
            width=preset.width,
            height=preset.height,
            sampler=preset.sampler,
            clip_skip=preset.clip_skip,
            negative_prompt=preset.negative_prompt,
        ),
        max_pixels=None if offer is None else offer.max_pixels or None,
        references=offer is not None and offer.references,
    )


def loras_reply(loras: Sequence[LoraInfo]) -> bytes:
    """All adapters."""
    rows = [
        wire.LoraRow(
            id=lora.id,
            name=lora.title or lora.id,
            default_weight=lora.default_weight,
            trigger_words=None if lora.trigger_words is None else list(lora.trigger_words),
            kind=lora.kind,
        )
        for lora in loras
    ]
    return _encode(wire.LoraList(loras=rows))


def health_reply(reached: Mapping[str, bool], queue: wire.Queue | None) -> bytes:
    """Whether each place where models are can be reached, and what there is to do."""
    well = queue is None or queue.status == "ok"
    backends: Any = {name: "ok" if well else "unreachable" for name, well in reached.items()}
    return _encode(wire.Health(status="ok" if well else "degraded", backends=backends, queue=queue))


def _told(job: Seen) -> wire.Job:
    return wire.Job(
        job_id=job.id,
        state=STATES[job.state],
        status=STATUSES[job.state],
        meta=_meta(job),
        result=_outcome(job.results),
        error=_clean(job.error) or (CANCELLED if job.state == "cancelled" else None),
        position=job.position,
        estimate=None if job.estimate is None else round(job.estimate, 1),
        note=_clean(job.note) or None,
        model=job.request.model,
        seed=job.request.seed,
        n=job.request.n,
        created_at=rfc3339(round(job.created * 1e9)),
        started_at=rfc3339(round(job.started * 1e9)) if job.started else None,
        finished_at=rfc3339(round(job.finished * 1e9)) if job.finished else None,
    )


def _meta(job: Seen) -> wire.Progress:
    return wire.Progress(current=job.done, total=job.total, percent=job.percent)


def _outcome(results: Sequence[Made]) -> wire.Outcome | None:
    pictures = [
        wire.Picture(
            index=index,
            filename=one.name,
            seed=one.made.seed,
            size=one.size,
            metadata=Raw(json_of(one.made)),
            warnings=list(one.warnings),
        )
        for index, one in enumerate(results)
    ]
    if not pictures:
        return None
    first = pictures[0]
    return wire.Outcome(
        filename=first.filename,
        seed=first.seed,
        metadata=first.metadata,
        filenames=[one.filename for one in pictures],
        images=pictures,
    )


def _clean(text: str) -> str:
    """Words may have half characters in them, which have no UTF-8."""
    return text.encode(errors="replace").decode()
