"""Us as the image-job API: requests read, and jobs told in Celery's words.

{"job_id":"7f2b0887-...","state":"PROGRESS","status":"processing","meta":{"current":15,"total":30,"percent":50},"result":null,...}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Raw, Struct

from adapters.framing import encode_line
from adapters.images import wire
from adapters.images.errors import in_query, invalid
from adapters.images.seen import Made, Seen, State
from adapters.ollama.times import rfc3339
from adapters.reading import read_body
from adapters.recipe import json_of
from canonical.errors import InvalidRequest
from canonical.media import PICTURES, Blob, image_from_base64
from canonical.models import ModelInfo
from canonical.painting import Lora, LoraInfo, Offer, Paint

PREVIEWS = 10
PARAMETERS = 20
"""Of a query."""
PAGE = 100
"""Jobs of a list, where nobody says how many."""
PAGES = 1000
WAIT = 3600.0
"""Seconds that a client may be held; who wants to wait longer asks again."""
STATES: dict[State, wire.Celery] = {
    "queued": "PENDING",
    "running": "PROGRESS",
    "done": "SUCCESS",
    "failed": "FAILURE",
    "cancelled": "REVOKED",
}
STATUSES: dict[State, wire.Status] = {
    "queued": "queued",
    "running": "processing",
    "done": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
_MESSAGES = {"queued": "Image en file d'attente"}
MESSAGE = "Image en cours de génération"
CANCELLED = "the job was cancelled"
HEADER = 7 * 1024
"""Bytes of a header's value: clients refuse lines of more than 8 KB."""
PROMPTS = ("prompt", "negative_prompt")
LEFT_OUT = "left_out"
DIGEST = "sha256:"
"""How a recipe tells a picture that it began with."""

_generate = msgspec.json.Decoder(wire.GenerateRequest, strict=False)
_encode = msgspec.json.Encoder().encode
_PREFER_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)


class Asked(Struct, frozen=True):
    """A request for pictures, and those of its pictures that are told by their digests only."""

    request: Paint
    digests: Mapping[str, str] = {}


class Page(Struct, frozen=True):
    """Which jobs are to be listed."""

    limit: int
    after: str
    states: tuple[State, ...]


# Requests


def read_generate(body: bytes) -> Asked:
    """``POST /generate``. Raises InvalidRequest."""
    asked = read_body(_generate, body, invalid)
    if asked.sampler and asked.scheduler and asked.sampler != asked.scheduler:
        raise InvalidRequest("sampler and scheduler are one field: give one of them", param="scheduler")
    previews = asked.previews or 0
    if not 0 <= previews <= PREVIEWS:
        raise InvalidRequest(f"previews must be from 0 to {PREVIEWS}, not {previews}", param="previews")
    pictures = {name: getattr(asked, name) or "" for name in ("image", "mask", "reference")}
    if asked.strength is not None and not pictures["image"]:
        raise InvalidRequest("strength says how much of an image is given up: the image is missing", param="strength")
    if asked.reference_scale is not None and not pictures["reference"]:
        raise InvalidRequest("reference_scale belongs to a reference, which is missing", param="reference_scale")
    blobs = {name: _picture(text, name) for name, text in pictures.items() if text and not text.startswith(DIGEST)}
    request = Paint(
        prompt=asked.prompt,
        model=asked.model or "",
        negative_prompt=asked.negative_prompt or "",
        loras=tuple(Lora(lora.name, lora.weight) for lora in asked.loras or ()),
        steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        guidance_rescale=asked.guidance_rescale,
        seed=None if asked.seed == -1 else asked.seed,
        width=asked.width,
        height=asked.height,
        sampler=asked.sampler or asked.scheduler or None,
        clip_skip=asked.clip_skip,
        mask_alpha=bool(asked.mask_alpha),
        mask_invert=bool(asked.mask_invert),
        strength=asked.strength,
        reference_scale=asked.reference_scale,
        n=1 if asked.n is None else asked.n,
        previews=previews,
        **blobs,
    )
    return Asked(request, {name: text for name, text in pictures.items() if text.startswith(DIGEST)})


def read_wait(query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds for which a client wants to be held, by ``?wait=`` or ``Prefer: wait=``; None: it does not say.

    Raises:
        InvalidRequest: the query's is no number. A header that cannot be read is as if it were not there (RFC 7240).
    """
    text = _query(query).get("wait")
    if text is not None:
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            raise in_query("wait", "a number of seconds is expected")
        return min(WAIT, float(text))
    for name, value in headers:
        if name == b"prefer":
            found = _PREFER_WAIT.search(value.decode("latin-1"))
            if found is not None:
                return min(WAIT, float(found[1]))
    return None


def read_index(query: bytes) -> int | None:
    """Which picture is wanted; None: nothing is said. Raises InvalidRequest."""
    text = _query(query).get("index")
    return None if text is None else _number("index", text, 0, 10_000)


def wants_previews(query: bytes) -> bool:
    """Whether half-finished pictures are wanted among the events. Raises InvalidRequest."""
    text = _query(query).get("previews", "0").lower()
    if text not in {"0", "1", "true", "false"}:
        raise in_query("previews", "0 or 1 is expected")
    return text in {"1", "true"}


def read_page(query: bytes) -> Page:
    """What is asked of ``GET /jobs``. Raises InvalidRequest."""
    found = _query(query)
    limit = _number("limit", found.get("limit", str(PAGE)), 1, PAGES)
    words = [word.strip() for word in found.get("state", "").split(",") if word.strip()]
    known: dict[str, State] = {told: state for words in (STATES, STATUSES) for state, told in words.items()}
    states = [known.get(word.upper()) or known.get(word.lower()) for word in words]
    if None in states:
        raise in_query("state", f"any of {', '.join(STATES.values())} is expected, several with commas between")
    return Page(limit, found.get("after", ""), tuple(dict.fromkeys(state for state in states if state)))


def _query(query: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=PARAMETERS))
    except ValueError as error:
        raise InvalidRequest(f"a query may have at most {PARAMETERS} parameters", param="query:") from error


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise in_query(name, f"a number from {least} to {most} is expected")
    return int(text)


def _picture(text: str, param: str) -> Blob:
    return image_from_base64(text, param=param, types=PICTURES)


# Replies


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
        told = json_of(made)
    fields = msgspec.json.decode(told) if len(told) > HEADER or LEFT_OUT.encode() in told else {}
    if len(told) > HEADER:
        fields = {name: value for name, value in fields.items() if name not in PROMPTS}
        fields[LEFT_OUT] = list(PROMPTS)
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
