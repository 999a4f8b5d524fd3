"""Us as client of a server that paints: ``/v1/images/generations`` and ``edits`` written, pictures read.

Beside OpenAI's own words, which every such server knows, local ones take a few more: which, and how each calls them, is told
by a table of ``Fields``. One picture is asked for at a time, so that each has a seed of its own and its end is seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from adapters.framing import SseReader
from adapters.openai import seen
from adapters.openai.errors import in_band_error
from canonical.errors import BackendError, InvalidRequest
from canonical.media import IMAGE_LIMIT, PICTURES, Blob, image_from_base64, image_from_bytes, image_size
from canonical.painting import Lora, Paint

Field = Literal[
    "clip_skip",
    "guidance_rescale",
    "guidance_scale",
    "loras",
    "negative_prompt",
    "reference_scale",
    "response_format",
    "sampler",
    "seed",
    "steps",
    "strength",
    "stream",
]
"""What is beside OpenAI's own words, or not known to all of its models: how the picture is to be told."""
Fields = Mapping[Field, str]
ALL: dict[Field, str] = {
    "clip_skip": "clip_skip",
    "guidance_rescale": "guidance_rescale",
    "guidance_scale": "guidance_scale",
    "loras": "loras",
    "negative_prompt": "negative_prompt",
    "reference_scale": "reference_scale",
    "response_format": "response_format",
    "sampler": "sampler",
    "seed": "seed",
    "steps": "steps",
    "strength": "strength",
    "stream": "stream",
}
"""As another dragoman calls them; most local servers pass over what they do not know."""
PARTIALS = 3
"""Half-finished pictures that can be asked for."""
LIMIT = IMAGE_LIMIT // 3 * 4 + 1024 * 1024
"""Bytes of one event of a stream: a picture as base64, and what is told of it."""

_SCALARS: tuple[Field, ...] = (
    "negative_prompt",
    "steps",
    "guidance_scale",
    "guidance_rescale",
    "seed",
    "sampler",
    "clip_skip",
    "loras",
)
_OF_IMAGES: tuple[Field, ...] = ("strength", "reference_scale")
_encode = msgspec.json.Encoder().encode
_pictures = msgspec.json.Decoder(seen.Pictures, strict=False)
_event = msgspec.json.Decoder(seen.PictureEvent, strict=False)


class Picture(Struct, frozen=True, kw_only=True):
    """A finished picture as the server tells it: its bytes, or a link to them."""

    image: Blob | None = None
    url: str = ""
    metadata: seen.Metadata = seen.Metadata()
    warnings: tuple[str, ...] = ()


class Partial(Struct, frozen=True):
    """A half-finished one."""

    image: Blob


def said(request: Paint, fields: Fields) -> tuple[Paint, tuple[str, ...]]:
    """The request as far as a server that takes ``fields`` can be told it, and the names of what is left out."""
    lost = [name for name in (*_SCALARS, *_OF_IMAGES) if name not in fields and _value(request, name) is not None]
    open = {name: "" if name == "negative_prompt" else () if name == "loras" else None for name in lost}
    return structs.replace(request, **open), tuple(lost)


def write_generation(request: Paint, model: str, fields: Fields) -> bytes:
    """The body of ``/v1/images/generations``, for one picture."""
    return _encode(_body(request, model, fields, _SCALARS))


def write_edit(request: Paint, model: str, fields: Fields, boundary: str) -> bytes:
    """The body of ``/v1/images/edits``, in parts: all servers of it read these, and few read JSON. Texts lie in no file's way.

    ``boundary`` is one that nobody who sends a picture or a prompt can guess.
    """
    parts: list[bytes] = []

    def part(head: str, content: bytes) -> None:
        parts.append(f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n")

    for name, value in _body(request, model, fields, (*_SCALARS, *_OF_IMAGES)).items():
        text = value if isinstance(value, str) else _encode(value).decode()
        part(f'name="{name}"', text.encode())
    images = [image for image in (request.image, request.reference) if image is not None]
    for image in images:
        name = "image" if len(images) == 1 else "image[]"
        part(_file(name, image), image.data)
    if request.mask is not None:
        part(_file("mask", request.mask), request.mask.data)
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def _file(name: str, image: Blob) -> str:
    ending = image.media_type.rpartition("/")[2]
    return f'name="{name}"; filename="{name.strip("[]")}.{ending}"\r\nContent-Type: {image.media_type}'


def _body(request: Paint, model: str, fields: Fields, scalars: tuple[Field, ...]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "prompt": request.prompt, "n": 1}
    width, height = request.width or request.height, request.height or request.width
    if width:
        body["size"] = f"{width}x{height}"
    if "response_format" in fields:
        body[fields["response_format"]] = "b64_json"
    if request.previews and "stream" in fields:
        body[fields["stream"]] = True
        body["partial_images"] = min(request.previews, PARTIALS)
    for name in scalars:
        value = _value(request, name)
        if name in fields and value is not None:
            body[fields[name]] = value
    return body


def _value(request: Paint, name: Field) -> Any:
    """What is to be sent of a field; None: nothing was said."""
    value = getattr(request, name)
    if name == "loras":
        value = [
            {"name": lora.name} if lora.weight is None else {"name": lora.name, "weight": lora.weight} for lora in value
        ]
    return None if value in ("", []) else value


def read_pictures(body: bytes) -> Picture:
    """The first picture of an answer.

    Raises:
        BackendError: the body is not this format, tells of a failure, or has no picture.
    """
    try:
        reply = _pictures.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackendError(f"the backend sent pictures that are not in OpenAI's format: {error}") from error
    if reply.error:
        raise in_band_error(reply.error)
    if not reply.data:
        raise BackendError("the backend sent no picture")
    return _picture(reply.data[0])


class PictureReader:
    """A stream's bytes in any slices -> the half-finished pictures, and the finished one."""

    def __init__(self) -> None:
        self._events = SseReader(LIMIT)

    def feed(self, data: bytes) -> list[Partial | Picture]:
        """What ``data`` completes. Raises BackendError: it is not this format, or tells of a failure."""
        found: list[Partial | Picture] = []
        for name, text in self._events.feed(data):
            if text == b"[DONE]":
                continue
            try:
                event = _event.decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise BackendError(f"the backend sent an event that is not in OpenAI's format: {error}") from error
            if event.error or name == b"error":
                raise in_band_error(event.error or event.message)
            kind = event.type or name.decode("ascii", "replace")
            if kind.endswith(".partial_image") and event.b64_json:
                found.append(Partial(picture_of(event.b64_json)))
            elif kind.endswith(".completed"):
                found.append(_picture(event))
        return found


def _picture(told: seen.Picture) -> Picture:
    metadata = seen.Metadata()
    if isinstance(told.metadata, dict):
        with contextlib.suppress(msgspec.ValidationError):  # another server's may say anything
            metadata = msgspec.convert(told.metadata, seen.Metadata)
    if metadata.seed is None and isinstance(told.seed, int):
        metadata = structs.replace(metadata, seed=told.seed)
    image = picture_of(told.b64_json) if told.b64_json else None
    if image is None and not told.url:
        raise BackendError("the backend sent no picture")
    warnings = told.warnings if isinstance(told.warnings, list) else []
    return Picture(
        image=image,
        url="" if image else told.url or "",
        metadata=metadata,
        warnings=tuple(one[:500] for one in warnings[:20] if isinstance(one, str)),
    )


def picture_of(data: bytes | str) -> Blob:
    """A picture, from its bytes or as base64. Raises BackendError: it is none, or too large."""
    try:
        if isinstance(data, str):
            return image_from_base64(data, param="", types=PICTURES)
        return image_from_bytes(data, param="", types=PICTURES)
    except InvalidRequest as error:
        raise BackendError(f"the backend sent a picture that cannot be used: {error.message}") from error


def made_of(request: Paint, picture: Picture, image: Blob) -> Paint:
    """What a picture was made from: as the server tells it, else as it was asked for; the size is the picture's own."""
    told = {
        name: value
        for name in seen.Metadata.__struct_fields__
        if name != "loras" and (value := getattr(picture.metadata, name)) is not None
    }
    if picture.metadata.loras:
        told["loras"] = tuple(Lora(one.name, one.weight) for one in picture.metadata.loras)
    width, height = image_size(image.data)
    told |= {"width": width or None, "height": height or None}
    return structs.replace(request, n=1, previews=0, **told)
