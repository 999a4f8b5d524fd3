"""What goes over the wire about pictures: OpenAI's fields, and those of local servers that paint.

Source: OpenAI's API reference and the Python SDK 3.54. Fields of a form are texts that are read as the same types.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from adapters.openai.wire import Given

Quality = Annotated[
    str, Meta(extra_json_schema={"enum": ["auto", "low", "medium", "standard", "high", "hd", "xhigh", "max"]})
]
Format = Annotated[str, Meta(extra_json_schema={"enum": ["png", "jpeg", "jpg", "webp"]})]
ReplyForm = Annotated[
    str,
    Meta(
        extra_json_schema={"enum": ["b64_json", "url"]},
        description="`b64_json`, unless the model is asked for as `dall-e-...`, where it is `url`.",
    ),
]
Size = Annotated[str, Meta(description="Width and height, `1024x768`; `auto` is the model's own.")]
Pictures = Annotated[int, Meta(ge=1, le=10)]
Partials = Annotated[int, Meta(ge=0, le=3)]
Percent = Annotated[int, Meta(ge=0, le=100)]
Seed = Annotated[int, Meta(description="0 to 4294967295; -1 is a random one.")]
Loras = Annotated[Any, Meta(description='Adapters: `["name", {"name": "other", "weight": 0.8}]` or `{"name": 0.8}`.')]
Source = Annotated[
    str, Meta(description="PNG, JPEG or WebP as a data URL or bare base64, or a link to a host that is listed.")
]


class Painting(Struct, kw_only=True):
    """What can be said about every picture."""

    model: str | None = None
    n: Pictures | None = None
    size: Size | None = None
    quality: Quality | None = None
    response_format: ReplyForm | None = None
    output_format: Format | None = None
    output_compression: Percent | None = None
    background: Annotated[Any, Meta(description="Ignored unless it is `opaque` or `auto`.")] = None
    user: Annotated[Any, Meta(description="Ignored.")] = None
    stream: bool | None = None
    partial_images: Partials | None = None
    negative_prompt: str | None = None
    steps: int | None = None
    num_inference_steps: int | None = None
    cfg_scale: float | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    clip_skip: int | None = None
    seed: Seed | None = None
    sampler: str | None = None
    loras: Loras = None


class Generation(Painting, kw_only=True):
    """The body of ``/v1/images/generations``."""

    prompt: Given


class Place(Struct, kw_only=True):
    """Where a picture is."""

    image_url: Source | None = None
    file_id: str | None = None
    """There are no files here: refused."""


class Remake(Painting, kw_only=True):
    """What is said of a picture that begins with another one."""

    image: Source | list[Source] | None = None
    images: list[Place] | None = None
    strength: float | None = None


class Edit(Remake, kw_only=True):
    """The body of ``/v1/images/edits`` in JSON."""

    prompt: Given
    mask: Source | Place | None = None
    reference_scale: float | None = None


class Variation(Remake, kw_only=True):
    """The body of ``/v1/images/variations`` in JSON."""


class Picture(Struct, omit_defaults=True, kw_only=True):
    """One of the answer's."""

    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    revised_prompt: str | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    """Not OpenAI's: whoever sends it again, with the rest of ``metadata``, gets the same picture."""
    metadata: Raw | UnsetType = UNSET
    """Not OpenAI's: what it was made from."""
    warnings: list[str] | UnsetType = UNSET
    """Not OpenAI's: what could not be wholly done."""


class TokenKinds(Struct, kw_only=True):
    """Of what the tokens are."""

    text_tokens: int
    image_tokens: int


class ImageUsage(Struct, kw_only=True):
    """The work, as numbers: a token is four characters of text, or 16 x 16 pixels."""

    input_tokens: int
    input_tokens_details: TokenKinds
    output_tokens: int
    total_tokens: int


class ImagesReply(Struct, kw_only=True):
    """The answer."""

    created: int
    data: list[Picture]
    background: str
    output_format: str
    quality: str
    size: str
    usage: ImageUsage


class PartialImage(Struct, kw_only=True):
    """A half-finished picture in a stream."""

    type: str
    b64_json: str
    partial_image_index: int
    image_index: int
    """Not OpenAI's: of which picture."""
    size: str
    quality: str
    background: str
    output_format: str
    created_at: int


class CompletedImage(Struct, kw_only=True):
    """A finished picture in a stream."""

    type: str
    b64_json: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    image_index: int
    """Not OpenAI's: of which picture."""
    size: str
    quality: str
    background: str
    output_format: str
    created_at: int
    usage: ImageUsage
    seed: int
    metadata: Raw
