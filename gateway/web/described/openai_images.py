"""What OpenAI's image routes take and answer."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from adapters.openai import image_wire as wire
from adapters.openai.wire import ErrorObject, Given
from gateway.web.described.operation import ASKS, KEEPS, Form, Operation, Operations, frames, json, ok

_File = Annotated[Any, Meta(extra_json_schema={"type": "string", "contentMediaType": "application/octet-stream"})]


class Error(Struct):
    """What failed, and why."""

    error: ErrorObject


class RemakeForm(wire.Painting, kw_only=True):
    """A form in parts. Several files come as `image[]`; what they call themselves counts for nothing."""

    image: _File
    strength: float | None = None


class EditForm(RemakeForm, kw_only=True):
    """A form in parts. Several files come as `image[]`; what they call themselves counts for nothing."""

    prompt: Given
    mask: _File = None
    """A PNG; what is transparent in it is painted anew."""
    reference_scale: float | None = None


_PARTS = "multipart/form-data"
_WORDS = "Waits until the pictures are there; a client that leaves stops them. Each has its seed beside it, and what it was made from."
_ANSWER = ok(
    json(wire.ImagesReply),
    frames(wire.PartialImage, wire.CompletedImage, Error),
    words="The pictures; a stream where `stream` is true.",
    headers=("x-generation-metadata",),
)
_GENERATE = Operation(
    "Paint pictures", _WORDS, body=wire.Generation, replies=_ANSWER, errors=(*ASKS, *KEEPS), asks=True
)
_EDIT = Operation(
    "Paint a picture anew, or what a mask says of it",
    f"In JSON it needs `image` or `images`. {_WORDS}",
    body=wire.Edit,
    forms=(Form(_PARTS, (EditForm,)),),
    replies=_ANSWER,
    errors=(*ASKS, *KEEPS),
    asks=True,
)
_VARY = Operation(
    "Paint pictures like another one",
    f"In JSON it needs `image` or `images`. {_WORDS}",
    body=wire.Variation,
    forms=(Form(_PARTS, (RemakeForm,)),),
    replies=_ANSWER,
    errors=(*ASKS, *KEEPS),
    asks=True,
)
_FILE = Operation(
    "A picture behind a link",
    "Such links come with `response_format: url`. They need no key: their signature opens this one picture, for an hour.",
    replies=ok(Form("image/png"), Form("image/jpeg"), Form("image/webp"), words="The picture."),
    errors=KEEPS,
)

_PATHS: Operations = {
    "/images/generations": {"POST": _GENERATE},
    "/images/edits": {"POST": _EDIT},
    "/images/variations": {"POST": _VARY},
    "/images/files/{name:str}": {"GET": _FILE, "HEAD": _FILE},
}
DESCRIBED: Operations = {f"{base}{path}": methods for base in ("/v1", "") for path, methods in _PATHS.items()}
