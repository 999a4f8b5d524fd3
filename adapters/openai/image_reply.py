"""Pictures as OpenAI answers them: whole, or as a stream of partial ones.

event: image_generation.partial_image
data: {"type":"image_generation.partial_image","b64_json":"...","partial_image_index":0,...}

event: image_generation.completed
data: {"type":"image_generation.completed","b64_json":"...","usage":{...},...}
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw, Struct

from adapters.openai import image_wire as wire
from adapters.openai.errors import error_body
from adapters.openai.images import ANY, Wish
from adapters.recipe import json_of, of_png
from canonical.errors import GatewayError
from canonical.media import Blob, image_size
from canonical.painting import Paint

STREAM = "text/event-stream; charset=utf-8"
CHARACTERS = 4
"""Of a prompt, for a token."""
PATCH = 16
"""Pixels of a side of what counts as a token of a picture."""

_encode = msgspec.json.Encoder().encode


class Done(Struct, frozen=True, kw_only=True):
    """A finished picture, as it goes out: in the format that was asked for, or as a link."""

    image: Blob
    """As it was painted."""
    shown: Blob | None = None
    url: str = ""
    made: Paint
    warnings: tuple[str, ...] = ()


def whole(wish: Wish, request: Paint, done: Sequence[Done], created: int) -> bytes:
    """The answer. ``request`` is complete."""
    return _encode(
        wire.ImagesReply(
            created=created,
            data=[
                wire.Picture(
                    b64_json=UNSET if one.shown is None else one.shown.base64(),
                    url=one.url or UNSET,
                    seed=UNSET if one.made.seed is None else one.made.seed,
                    metadata=metadata(one),
                    warnings=list(one.warnings) or UNSET,
                )
                for one in done
            ],
            background="opaque",
            output_format=wish.form or _form_of(done[0].image),
            quality=_quality(wish),
            size=_size(request),
            usage=usage(request, len(done)),
        )
    )


def partial(wish: Wish, request: Paint, preview: Blob, at: tuple[int, int], created: int) -> bytes:
    """The frame of a half-finished picture: ``at`` is the number of the picture, and of this one of it."""
    return _frame(
        wire.PartialImage(
            type=f"{_kind(wish)}.partial_image",
            b64_json=preview.base64(),
            partial_image_index=at[1],
            image_index=at[0],
            size=_size(request),
            quality=_quality(wish),
            background="opaque",
            output_format=_form_of(preview),
            created_at=created,
        )
    )


def completed(wish: Wish, request: Paint, done: Done, index: int, created: int) -> bytes:
    """The frame of a finished picture."""
    return _frame(
        wire.CompletedImage(
            type=f"{_kind(wish)}.completed",
            b64_json=UNSET if done.shown is None else done.shown.base64(),
            url=done.url or UNSET,
            image_index=index,
            size=_size(request),
            quality=_quality(wish),
            background="opaque",
            output_format=wish.form or _form_of(done.image),
            created_at=created,
            usage=usage(request, 1),
            seed=done.made.seed or 0,
            metadata=metadata(done),
        )
    )


def failed(error: GatewayError) -> bytes:
    """The last frame of a stream that fails."""
    return b"event: error\ndata: " + error_body(error) + b"\n\n"


def metadata(done: Done) -> Raw:
    """What a picture was made from, as the picture itself tells it: with the digests of those that it began with."""
    told = of_png(done.image.data).json
    try:
        if isinstance(msgspec.json.decode(told), dict):
            return Raw(told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # another server's picture may say anything
    return Raw(json_of(done.made))


def usage(request: Paint, pictures: int) -> wire.ImageUsage:
    """The work, by measures that need no tokenizer and stay what they are."""
    text = -(-(len(request.prompt) + len(request.negative_prompt)) // CHARACTERS)
    given = (request.image, request.mask, request.reference)
    image = sum(_patches(*image_size(blob.data)) for blob in given if blob is not None)
    output = pictures * _patches(request.width or 0, request.height or 0)
    return wire.ImageUsage(
        input_tokens=text + image,
        input_tokens_details=wire.TokenKinds(text_tokens=text, image_tokens=image),
        output_tokens=output,
        total_tokens=text + image + output,
    )


def _form_of(image: Blob) -> str:
    return image.media_type.removeprefix("image/")


def _patches(width: int, height: int) -> int:
    return -(-width // PATCH) * -(-height // PATCH)


def _frame(event: wire.PartialImage | wire.CompletedImage) -> bytes:
    return b"event: " + event.type.encode() + b"\ndata: " + _encode(event) + b"\n\n"


def _kind(wish: Wish) -> str:
    return "image_edit" if wish.edit else "image_generation"


def _size(request: Paint) -> str:
    return f"{request.width}x{request.height}"


def _quality(wish: Wish) -> str:
    return {ANY: "medium", "standard": "medium", "hd": "high"}.get(wish.quality, wish.quality)
