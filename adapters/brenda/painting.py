"""``/v1/images/generate`` and ``/v1/images/refine``: bytes -> what is to be painted, and how far it is -> events.

    data: {"progress":0.0}

    data: {"progress":0.45}

    data: {"status":"completed","image":"iVBORw0...","model":"sdxl-turbo","seed":42,...}

What fails ends with ``{"error":"..."}``. Progress never goes back, though a job may begin anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar

import msgspec
from msgspec import UNSET, UnsetType, structs

from adapters.brenda import painting_wire, wire
from adapters.brenda.loads import LoadStream
from adapters.brenda.pictures import picture, wrong
from adapters.framing import encode_line
from adapters.reading import read_body
from canonical.errors import GatewayError
from canonical.media import Blob
from canonical.painting import Lora, Offer, Paint

MODEL = "sdxl-turbo"
"""Who paints where nobody is named and there is one of this name."""
SIDE = 1024
STEPS = 20
STRENGTH = 0.3
LARGER = 4
"""Times the pixels that a model was made for, up to which it is asked for ``SIDE`` by ``SIDE``: SDXL-turbo's just are that many."""
SHARES = 1000
"""Steps of progress that are told at most."""

_generate = msgspec.json.Decoder(painting_wire.GenerateRequest, strict=False)
_refine = msgspec.json.Decoder(painting_wire.RefineRequest, strict=False)

V = TypeVar("V")


def read_generate(body: bytes) -> Paint:
    """``POST /v1/images/generate``; what it says nothing of stays open, but for ``steps``. Raises InvalidRequest."""
    return _paint(read_body(_generate, body, wrong))


def read_refine(body: bytes) -> Paint:
    """``POST /v1/images/refine``.

    Raises:
        InvalidRequest: the body breaks the format or a limit; TooLarge: the picture does.
    """
    asked = read_body(_refine, body, wrong)
    strength = STRENGTH if asked.strength is None else asked.strength
    return structs.replace(_paint(asked), image=picture(asked.image), strength=strength)


def _paint(asked: painting_wire.Request) -> Paint:
    return Paint(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt or "",
        model=asked.model_type or asked.model or "",
        steps=STEPS if asked.steps is None else asked.steps,
        width=asked.width,
        height=asked.height,
        seed=None if asked.seed == -1 else asked.seed,
        guidance_scale=asked.guidance_scale,
        loras=tuple(Lora(one.name, one.weight) for one in asked.loras or ()),
    )


def sized(request: Paint, offer: Offer) -> Paint:
    """A request of noise alone with the document's size for what it leaves open.

    A model that was made for far smaller pictures, or cannot paint such large ones, is left its own.
    """
    own = (offer.preset.width or SIDE) * (offer.preset.height or SIDE)
    if request.image is not None or own * LARGER < SIDE * SIDE or 0 < offer.max_pixels < SIDE * SIDE:
        return request
    return structs.replace(request, width=request.width or SIDE, height=request.height or SIDE)


class PaintStream:
    """How far a picture is, and the picture -> events."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    heartbeat: ClassVar[bytes] = LoadStream.heartbeat

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told = -1

    def feed(self, done: int, total: int) -> bytes:
        """So many of its steps are done; nothing where that is no news."""
        share = min(SHARES * done // total, SHARES) if total else 0
        if share <= self._told:
            return b""
        self._told = share
        return _event(wire.Progress(share / SHARES))

    @staticmethod
    def end(image: Blob, made: Paint, warnings: Iterable[str] = ()) -> bytes:
        """The picture, which was made from ``made``."""
        painted = painting_wire.Painted(
            image=image.base64(),
            model=made.model,
            seed=_known(made.seed),
            steps=_known(made.steps),
            guidance_scale=_known(made.guidance_scale),
            width=_known(made.width),
            height=_known(made.height),
            warnings=list(warnings) or UNSET,
        )
        return _event(painted)

    @staticmethod
    def fail(error: GatewayError) -> bytes:
        """The last event of what has failed."""
        return _event(wire.Error(error.message))


def _known(value: V | None) -> V | UnsetType:
    return UNSET if value is None else value


def _event(value: wire.Progress | wire.Error | painting_wire.Painted) -> bytes:
    return b"data: " + encode_line(value) + b"\n\n"
