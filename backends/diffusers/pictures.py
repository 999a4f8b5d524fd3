"""Pictures on their way in and out of a model: runs in a worker process."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from backends.seeing.decoding import BadPicture, decoded
from backends.seeing.serving import Wrong
from canonical.media import Blob

Size = tuple[int, int]
_LOOKED_AT = (512, 512)
"""More than what looks at pictures makes out."""
_PACKED = 6
"""How hard a PNG is packed: the same each time, as its bytes are promised to be."""


def opened(blob: Blob, size: Size, param: str) -> Image.Image:
    """A picture from a stranger, in this size. Raises Wrong."""
    return _fitted(_decoded(blob, size, param, ground=True), size)


def seen(blob: Blob, param: str) -> Image.Image:
    """A picture from a stranger, in its own shape. Raises Wrong."""
    return _decoded(blob, _LOOKED_AT, param, ground=True)


def opened_mask(blob: Blob, size: Size, *, by_alpha: bool) -> Image.Image:
    """A mask in this size, white where it says so; ``by_alpha``: where it is transparent, if any of it is. Raises Wrong."""
    image = _decoded(blob, size, "mask", ground=not by_alpha)
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            return _fitted(alpha.point(lambda of: 255 - of), size)
    return _fitted(image.convert("L"), size)


def png(image: Image.Image) -> bytes:
    """Its bytes as a PNG."""
    packed = BytesIO()
    image.save(packed, "PNG", compress_level=_PACKED)
    return packed.getvalue()


def _decoded(blob: Blob, size: Size, param: str, *, ground: bool) -> Image.Image:
    try:
        return decoded(blob.data, width=size[0], height=size[1], ground=ground).image
    except BadPicture as error:
        raise Wrong(str(error), param) from error


def _fitted(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
