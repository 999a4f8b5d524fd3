"""Pictures from strangers, decoded: in a worker process only, under its limit of memory. Pillow stands behind it.

What comes out is upright, of three colours, and no larger than asked. What cannot be decoded is told in words for who
sent it.
"""

from __future__ import annotations

import contextlib
from io import BytesIO

from msgspec import Struct
from PIL import Image, ImageStat, PngImagePlugin, UnidentifiedImageError

from canonical.media import PIXELS, image_size

FORMATS = ("PNG", "JPEG", "WEBP")
_TEXTS = 1024 * 1024
"""Bytes that the texts in a PNG may have, unpacked."""
_LARGE = 10_000_000
"""Pixels from which on memory may be what a picture lacks."""
_LIGHT = 128
"""From this grey on a drawing on no ground is light, and its ground has to be dark."""

Image.MAX_IMAGE_PIXELS = PIXELS
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _TEXTS


class BadPicture(Exception):
    """It cannot be decoded, and why."""


class Picture(Struct, frozen=True):
    """A decoded picture. ``width`` and ``height`` are those that it had, upright; ``image`` may be smaller."""

    image: Image.Image
    width: int
    height: int


def decoded(data: bytes, *, width: int, height: int, ground: bool = True) -> Picture:
    """The picture, made to fit into ``width`` and ``height`` pixels where it is larger than twice that.

    ``ground`` False: what is transparent stays so.

    Raises:
        BadPicture: it is none, is damaged, or takes too much to decode.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check_size(image)
            whole = image.size
            largest = 2 * max(width, height)
            image.draft(None, (min(largest, image.width), min(largest, image.height)))  # a JPEG's decoder can halve
            image.load()
            plain = _plain(image)
            turned = _turn(image)
    except BadPicture:
        raise
    except Image.DecompressionBombError as error:
        raise BadPicture(f"the picture has more than {PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise BadPicture("this is no picture that can be decoded: PNG, JPEG and WebP are accepted") from error
    except MemoryError as error:
        raise BadPicture("the picture takes more memory than there is for it") from error
    except Exception as error:  # a decoder that is fed rubbish raises whatever it likes, and its words name our memory
        raise BadPicture(_fault(data, str(error))) from error
    if turned is not None:
        plain = plain.transpose(turned)
        if turned in _SIDEWAYS:
            whole = (whole[1], whole[0])
    halves = max(1, min(plain.width // (2 * width), plain.height // (2 * height)))
    if halves > 1:
        plain = plain.reduce(halves)
    return Picture(_on_ground(plain) if ground else plain, *whole)


def _fault(data: bytes, words: str) -> str:
    if "truncated" in words:
        return "the picture is cut short"
    width, height = image_size(data)
    # The decoder of JPEGs has one word for both.
    large = width * height > _LARGE
    return "the picture is damaged" + (", or takes more memory than there is for it" if large else "")


def _check_size(image: Image.Image) -> None:
    """By what will be decoded, whatever other headers say."""
    if image.width * image.height > PIXELS:
        raise BadPicture(f"the picture has more than {PIXELS} pixels")


_SIDEWAYS = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's word for how a camera was held -> what makes its picture upright."""


def _turn(image: Image.Image) -> Image.Transpose | None:
    with contextlib.suppress(Exception):  # notes that cannot be read turn nothing
        return _TURNS.get(image.getexif().get(0x0112, 1))
    return None


def _plain(image: Image.Image) -> Image.Image:
    """In a mode that everything can be done with: grey or colours of 8 bits, perhaps with an alpha channel."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image.convert("I").point(lambda value: value / 256, "L")
    if image.mode in {"LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in {"L", "RGB", "RGBA"} else image.convert("RGB")


def _on_ground(image: Image.Image) -> Image.Image:
    """Without transparency: on white, or on black where what is drawn is light itself."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    alpha = image.getchannel("A")
    drawn = ImageStat.Stat(image.convert("L"), mask=alpha)
    light = drawn.count[0] > 0 and drawn.mean[0] >= _LIGHT and alpha.getextrema() != (255, 255)
    ground = Image.new("RGB", image.size, "black" if light else "white")
    ground.paste(image, mask=alpha)
    return ground


def at_least(image: Image.Image, least: int) -> Image.Image:
    """With a white border right and below, where a side is shorter than ``least``."""
    if min(image.size) >= least:
        return image
    larger = Image.new("RGB", (max(image.width, least), max(image.height, least)), "white")
    larger.paste(image, (0, 0))
    return larger
