"""Requests of the image-job API: bytes and queries -> what is to be painted, listed or waited for.

{"prompt":"a red cube","model":"sdxl-base","loras":[{"name":"night","weight":0.8}],"steps":20,"seed":42}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from adapters.images import wire
from adapters.images.errors import in_query, invalid
from adapters.images.seen import STATES, STATUSES, State
from adapters.reading import read_body
from adapters.recipe import DIGEST
from canonical.errors import InvalidRequest
from canonical.media import PICTURES, Blob, image_from_base64
from canonical.painting import Lora, Paint

PREVIEWS = 10
PARAMETERS = 20
"""Of a query."""
PAGE = 100
"""Jobs of a list, where nobody says how many."""
PAGES = 1000
WAIT = 3600.0
"""Seconds that a client may be held; who wants to wait longer asks again."""
_generate = msgspec.json.Decoder(wire.GenerateRequest, strict=False)
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
