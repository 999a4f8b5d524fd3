"""``/v1/images/*`` as we read it: JSON, or a form in parts -> what is to be painted, and how its answer is to look.

OpenAI's words for a picture are few, and other servers' many; what stands for nothing here is told as dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from adapters.forms import Part, is_form, read_form
from adapters.openai import image_wire as wire
from adapters.openai.fields import invalid, missing, read
from adapters.openai.image_fields import form_of, loras_of
from canonical.errors import InvalidRequest, TooLarge
from canonical.media import PICTURES, TOO_LARGE, Blob, image_from_base64, image_from_bytes
from canonical.painting import MULTIPLE, SIDE, Paint
from canonical.report import Report

Form = Literal["png", "jpeg", "webp"]

IMAGES = 16
"""Pictures that an edit may bring; how many of them a model takes is another matter."""
VARIATION = 0.7
"""How much of a picture its variations give up, where nothing is said: what it shows stays, how it shows it does not."""
QUALITIES = {"auto": 1.0, "low": 0.5, "medium": 1.0, "standard": 1.0, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}
"""OpenAI's words -> how many of its usual steps a model takes."""
FORMATS: dict[str, Form] = {"png": "png", "jpeg": "jpeg", "jpg": "jpeg", "webp": "webp"}
ANY = "auto"
"""Size, background: as the model has it."""

P = TypeVar("P", bound=wire.Painting)
Source = Blob | str
"""A picture, or a link to one."""

_SIZE = re.compile(r"\s*(\d{1,6})\s*[xX*]\s*(\d{1,6})\s*")
_generation = msgspec.json.Decoder(wire.Generation, strict=False)
_edit = msgspec.json.Decoder(wire.Edit, strict=False)
_variation = msgspec.json.Decoder(wire.Variation, strict=False)
_names = msgspec.json.Decoder(dict[str, Raw])
_IDLE: dict[str, frozenset[bytes]] = {
    "background": frozenset((b'"auto"', b'"opaque"', b'""')),
    "moderation": frozenset((b'"auto"', b'"low"')),  # there is none
    "user": frozenset((b'""',)),
}
"""Fields that say nothing with these values."""
_IGNORED = frozenset({"background", "user"})
"""Known, and nothing comes of them."""


class Wish(Struct, frozen=True, kw_only=True):
    """A request: what to paint, and how to answer."""

    paint: Paint
    """Without the pictures that it begins with."""
    images: tuple[Source, ...] = ()
    """The first is the one to begin with, the others are to be taken after."""
    mask: Source | None = None
    edit: bool = False
    """Whether it begins with a picture."""
    quality: str = ANY
    steps: float = 1.0
    """Of the model's own, where the request tells none."""
    form: Form | None = None
    """None: as it is painted."""
    compression: int | None = None
    link: bool = False
    """Whether links are wanted instead of the pictures."""
    stream: bool = False
    names: dict[str, str] = {}
    """Fields of ``Paint`` -> what the client calls them."""
    report: Report = Report()


def read_generation(body: bytes) -> Wish:
    """``/v1/images/generations``. Raises InvalidRequest."""
    return _wish(read(_generation, body), _fields(body))


def read_edit(content_type: bytes, body: bytes) -> Wish:
    """``/v1/images/edits``, in parts or in JSON.

    Raises:
        InvalidRequest: the body breaks its format, has no picture, or one that is none or too large.
    """
    images: tuple[Source, ...]
    mask: Source | None
    if is_form(content_type):
        form = form_of(read_form(content_type, body))
        asked = _converted(form.fields, wire.Edit)
        images, mask = tuple(map(_from_part, form.images)), _mask(form.mask)
        told = dict.fromkeys(form.fields, b"")
    else:
        asked = read(_edit, body)
        images, told = _images(asked), _fields(body)
        mask = None if asked.mask is None else _source(asked.mask, "mask")
    wish = _wish(asked, told, images=images)
    more = {"strength": asked.strength, "reference_scale": asked.reference_scale, "mask_alpha": mask is not None}
    return structs.replace(wish, mask=mask, paint=structs.replace(wish.paint, **more))


def read_variation(content_type: bytes, body: bytes) -> Wish:
    """``/v1/images/variations``, in parts or in JSON. Raises as ``read_edit``."""
    images: tuple[Source, ...]
    if is_form(content_type):
        form = form_of(read_form(content_type, body))
        asked = _converted(form.fields, wire.Variation)
        images, told = tuple(map(_from_part, form.images)), dict.fromkeys(form.fields, b"")
    else:
        asked = read(_variation, body)
        images, told = _images(asked), _fields(body)
    if len(images) > 1:
        raise InvalidRequest("variations are made of one image", param="image")
    wish = _wish(asked, told, images=images)
    strength = VARIATION if asked.strength is None else asked.strength
    return structs.replace(wish, paint=structs.replace(wish.paint, strength=strength))


def _wish(asked: wire.Painting, told: dict[str, bytes], *, images: tuple[Source, ...] | None = None) -> Wish:
    if images is not None and not images:
        raise missing("image")
    if images is not None and len(images) > IMAGES:
        raise InvalidRequest(f"at most {IMAGES} images are accepted", param="image")
    prompt = getattr(asked, "prompt", "")
    if "prompt" in asked.__struct_fields__ and not prompt.strip():
        raise InvalidRequest("invalid 'prompt': it must not be empty", param="prompt")
    quality = _one_of("quality", asked.quality, QUALITIES) or ANY
    width, height, near = _size(asked.size)
    steps = asked.steps if asked.steps is not None else asked.num_inference_steps
    guidance = asked.guidance_scale if asked.guidance_scale is not None else asked.cfg_scale
    stream = bool(asked.stream)
    factor = QUALITIES[quality] if steps is None else 1.0
    approximated = {"size": near} if near else {}
    if factor != 1.0:
        approximated["quality"] = f"{factor:g} times the model's usual steps"
    return Wish(
        paint=Paint(
            prompt=prompt,
            model=asked.model or "",
            negative_prompt=asked.negative_prompt or "",
            loras=loras_of(asked.loras),
            steps=steps,
            guidance_scale=guidance,
            guidance_rescale=asked.guidance_rescale,
            seed=None if asked.seed is None or asked.seed == -1 else asked.seed,
            width=width,
            height=height,
            sampler=asked.sampler or None,
            clip_skip=asked.clip_skip,
            n=1 if asked.n is None else asked.n,
            previews=(asked.partial_images or 0) if stream else 0,
        ),
        images=images or (),
        edit=images is not None,
        quality=quality,
        steps=factor,
        form=_form(asked.output_format),
        compression=asked.output_compression,
        link=_link(asked),
        stream=stream,
        names={
            "width": "size",
            "height": "size",
            "reference": "image",
            "steps": "num_inference_steps" if asked.steps is None else "steps",
            "guidance_scale": "cfg_scale" if asked.guidance_scale is None else "guidance_scale",
        },
        report=_report(asked, told, approximated),
    )


def _report(asked: wire.Painting, told: dict[str, bytes], approximated: dict[str, str]) -> Report:
    """What becomes of the fields: whatever is not known, and what is and stands for nothing, is dropped."""
    known = frozenset(asked.__struct_fields__) | {"image[]", "mask"}
    honoured: list[str] = []
    dropped: list[str] = []
    for name, value in told.items():
        if value == b"null" or name in approximated:
            continue
        raw = value or msgspec.json.encode(getattr(asked, name, None))
        if raw in _IDLE.get(name, ()):
            continue
        lost = name not in known or name in _IGNORED or (name == "partial_images" and not asked.stream)
        lost = lost or (name == "output_compression" and asked.output_format in {None, "png"})
        (dropped if lost else honoured).append(name)
    return Report(tuple(honoured), approximated, tuple(dropped))


def _fields(body: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in _names.decode(body).items()}


def _converted(fields: dict[str, Any], struct: type[P]) -> P:
    try:
        return msgspec.convert(fields, struct, strict=False)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from error


def _size(text: str | None) -> tuple[int | None, int | None, str]:
    """Width, height, and what they were brought to where they were others; None: as the model has it."""
    if text is None or text.strip().lower() in {"", ANY}:
        return None, None, ""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"invalid 'size': {text[:50]!r} is neither 'auto' nor a width and a height, such as '1024x768'",
            param="size",
        )
    asked = int(found[1]), int(found[2])
    least, most = SIDE
    if not all(least <= side <= most for side in asked):
        raise InvalidRequest(
            f"invalid 'size': a side must have from {least} to {most} pixels, not {text.strip()}", param="size"
        )
    width, height = ((side + MULTIPLE // 2) // MULTIPLE * MULTIPLE for side in asked)
    return width, height, f"{width}x{height}" if (width, height) != asked else ""


def _link(asked: wire.Painting) -> bool:
    word = _one_of("response_format", asked.response_format, ("b64_json", "url"))
    # Who asks for an older model of OpenAI's by its name is used to links; the others never send any.
    return word == "url" or (not word and (asked.model or "").startswith("dall-e"))


def _form(text: str | None) -> Form | None:
    return FORMATS[word] if (word := _one_of("output_format", text, FORMATS)) else None


def _one_of(name: str, text: str | None, known: Collection[str]) -> str:
    """The word; empty: there is none."""
    word = (text or "").strip().lower()
    if word and word not in known:
        words = ", ".join(f"'{one}'" for one in known)
        raise InvalidRequest(f"invalid '{name}': {word[:50]!r} is not one of {words}", param=name)
    return word


def _images(asked: wire.Remake) -> tuple[Source, ...]:
    given: list[str | wire.Place] = [asked.image] if isinstance(asked.image, str) else [*(asked.image or ())]
    given += asked.images or ()
    if len(given) > IMAGES:
        raise InvalidRequest(f"at most {IMAGES} images are accepted", param="image")
    return tuple(_source(one, "image") for one in given)


def _source(given: str | wire.Place, param: str) -> Source:
    if isinstance(given, wire.Place):
        if given.image_url is None:
            words = "there are no files here: send the image as an image_url with a data: URL"
            raise InvalidRequest(words if given.file_id else "it has no image_url", param=param)
        given = given.image_url
    if given[:8].lower().startswith(("http://", "https://")):
        return given
    try:
        return image_from_base64(given, param=param, types=PICTURES)
    except InvalidRequest as error:
        raise _too_large(error) from error


def _mask(part: Part | None) -> Blob | None:
    return None if part is None or not part.data else _from_part(part, "mask")


def _from_part(part: Part, param: str = "image") -> Blob:
    if part.data[:5] == b"data:":
        try:
            return image_from_base64(part.text(), param=param, types=PICTURES)
        except InvalidRequest as error:
            raise _too_large(error) from error
    return image_from_bytes(part.data, param=param, types=PICTURES)


def _too_large(error: InvalidRequest) -> InvalidRequest:
    return TooLarge(error.message, param=error.param) if error.code == TOO_LARGE else error
