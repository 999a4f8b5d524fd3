"""Echo's pictures: stripes in colours that follow from the request. They need nothing, and pretend to be no painting.

The same request gives the same bytes, and anything else in it gives others: enough to write and test applications with.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from hashlib import blake2b

import msgspec
from msgspec import structs

from adapters.recipe import in_png
from canonical.errors import InvalidRequest, NotFound
from canonical.media import Blob
from canonical.painting import Lora, LoraInfo, Offer, Paint, Painted, Step, alone, nearest
from canonical.png import SIGNATURE, chunk

PIXELS = 2048 * 2048
STRIPES = 8

OFFER = Offer(
    preset=Paint(prompt="", steps=4, guidance_scale=7.0, width=64, height=64, sampler="euler"),
    samplers=("euler", "euler_a"),
    loras=(
        LoraInfo(id="bright", title="Brighter stripes", default_weight=0.75, trigger_words=("bright",)),
        LoraInfo(id="dark", title="Darker stripes"),
    ),
    max_pixels=PIXELS,
)


def prepared_echo(request: Paint) -> Paint:
    """The request, complete but for its seed.

    Raises:
        NotFound: an adapter that there is not.
        InvalidRequest: another sampler, or more pixels than it paints.
    """
    known = {lora.id: lora for lora in OFFER.loras}
    for lora in request.loras:
        if lora.name not in known:
            raise NotFound(f"there is no LoRA {lora.name[:80]!r}{nearest(lora.name, known)}", param="loras")
    if request.sampler not in {None, *OFFER.samplers}:
        raise InvalidRequest(
            f"there is no sampler {(request.sampler or '')[:80]!r}{nearest(request.sampler or '', OFFER.samplers)}",
            param="sampler",
        )
    if (request.width or 0) * (request.height or 0) > PIXELS:
        raise InvalidRequest(f"width times height may be at most {PIXELS}", param="width")
    open = {
        name: getattr(OFFER.preset, name)
        for name in ("steps", "guidance_scale", "width", "height", "sampler")
        if getattr(request, name) is None
    }
    stack = tuple(
        Lora(lora.name, known[lora.name].default_weight if lora.weight is None else lora.weight)
        for lora in request.loras
    )
    return structs.replace(request, loras=stack, **open)


def painted_echo(request: Paint) -> Iterator[Step | Painted]:
    """The steps and pictures of a complete request."""
    assert request.steps is not None
    for index in range(request.n):
        made = alone(request, index)
        for done in range(1, request.steps + 1):
            due = request.previews and done % max(1, request.steps // (request.previews + 1)) == 0
            preview = _stripes(made, salt=done) if due and done < request.steps else None
            yield Step(done=done, total=request.steps, index=index, preview=preview)
        yield Painted(image=_stripes(made), made=made, index=index)


def _stripes(made: Paint, salt: int = 0) -> Blob:
    assert made.width is not None
    assert made.height is not None
    digest = blake2b(msgspec.json.encode(made, order="sorted"), digest_size=STRIPES * 3, key=salt.to_bytes(2, "big"))
    colours = digest.digest()
    rows = bytearray()
    for y in range(made.height):
        at = y * STRIPES // made.height * 3
        rows += b"\0" + colours[at : at + 3] * made.width
    head = struct.pack(">IIBBBBB", made.width, made.height, 8, 2, 0, 0, 0)
    png = SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")
    return Blob(in_png(png, made), "image/png")
