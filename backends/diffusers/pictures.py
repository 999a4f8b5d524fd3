"""Pictures on their way in and out of a model: runs in a worker process."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from backends.seeing.decoding import BadPicture, decoded
from backends.seeing.serving import Wrong
from canonical.media import Blob

_PACKED = 6
"""How hard a PNG is packed: the same each time, as its bytes are promised to be."""


def opened(blob: Blob, size: tuple[int, int], param: str) -> Image.Image:
    """A picture from a stranger, in this size. Raises Wrong."""
    try:
        image = decoded(blob.data, width=size[0], height=size[1]).image
    except BadPicture as error:
        raise Wrong(str(error), param) from error
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def png(image: Image.Image) -> bytes:
    """Its bytes as a PNG."""
    packed = BytesIO()
    image.save(packed, "PNG", compress_level=_PACKED)
    return packed.getvalue()
