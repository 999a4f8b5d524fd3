"""How large a picture becomes: as asked; what is left open is as the picture has it that is painted over, or as the model does best."""

from __future__ import annotations

import math
import struct

from canonical.errors import InvalidRequest
from canonical.media import Blob, image_size
from canonical.painting import MULTIPLE, SIDE, Paint

Size = tuple[int, int]
_SMALLEST = 32
"""Pixels of a side that is not asked for."""
_NEAR = (0.5, 1.5)
"""How many of its best pixels a model does well with: a picture of so many is painted over in its own size."""
_NOTES = 64 * 1024
"""Bytes at the beginning of a JPEG in which a camera may have noted how it was held."""


def size(request: Paint, best: Size, most: int) -> Size:
    """Width and height. ``best``: those that the model was made for; ``most``: pixels that it may be asked for.

    Raises:
        InvalidRequest: they are too many.
    """
    width, height = request.width, request.height
    like = best
    if request.image is not None and not (width and height):
        like = upright_size(request.image) or best
    if not width and not height:
        found = _at_best(like, best, most)
    elif width and height:
        found = (width, height)
    elif request.image is None:
        found = (width or best[0], height or best[1])
    else:
        scale = width / like[0] if width else (height or 0) / like[1]
        found = (width or _side(like[0] * scale), height or _side(like[1] * scale))
    pixels = found[0] * found[1]
    if pixels > most:
        words = f"width times height may be at most {most} here, not {found[0]} x {found[1]} = {pixels}"
        raise InvalidRequest(words, param="height" if height and not width else "width")
    return found


def _at_best(like: Size, best: Size, most: int) -> Size:
    """Shaped like this, with about as many pixels as the model does best."""
    wanted = min(best[0] * best[1], most)
    share = like[0] * like[1] / wanted
    if _NEAR[0] <= share <= _NEAR[1] and like[0] * like[1] <= most:
        return _side(like[0]), _side(like[1])
    scale = 1 / math.sqrt(share)
    sides = (_side(like[0] * scale), _side(like[1] * scale))
    return sides if sides[0] * sides[1] <= most else best


def _side(pixels: float) -> int:
    """The nearest side that there can be."""
    return min(SIDE[1], max(_SMALLEST, round(pixels / MULTIPLE) * MULTIPLE))


def upright_size(image: Blob) -> Size | None:
    """Its sides as one sees it: a camera may have been held sideways. None: it does not say."""
    width, height = image_size(image.data)
    if not width or not height:
        return None
    return (height, width) if image.media_type == "image/jpeg" and _sideways(image.data[:_NOTES]) else (width, height)


def _sideways(head: bytes) -> bool:
    """Whether EXIF's notes say that it has to be turned by a quarter."""
    at = head.find(b"Exif\0\0") + 6
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[at : at + 4])
    if at < 6 or order is None:
        return False
    try:
        (first,) = struct.unpack_from(f"{order}I", head, at + 4)
        (count,) = struct.unpack_from(f"{order}H", head, at + first)
        for entry in range(min(count, 256)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", head, at + first + 2 + 12 * entry)
            if tag == 0x0112:
                return kind == 3 and value in {5, 6, 7, 8}
    except struct.error:
        pass
    return False
