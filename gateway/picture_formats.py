"""Finished pictures in the format that a client asks for. They are our own: nobody's upload is ever decoded in this process."""

from __future__ import annotations

import importlib.util
import io
from functools import cache

from adapters.recipe import of_png
from backends import threads
from canonical.errors import Unsupported
from canonical.media import PICTURES, Blob, image_from_bytes

QUALITY = {"jpeg": 95, "webp": 90}
"""Where the client tells none."""
_EXIF, _USER_COMMENT = 0x8769, 0x9286


@cache
def can_convert() -> bool:
    """Whether Pillow is there; it is not imported for that."""
    return importlib.util.find_spec("PIL") is not None


def check_form(form: str | None, kept: str = "png") -> None:
    """Raises Unsupported: pictures cannot be had in that format here."""
    if form not in {None, kept} and not can_convert():
        words = f"output_format {form!r} is not available here: it takes Pillow, which comes with dragoman[images]"
        raise Unsupported(words, param="output_format")


async def converted(image: Blob, form: str | None, quality: int | None = None) -> Blob:
    """The picture as ``png``, ``jpeg`` or ``webp``; None: as it is. Raises Unsupported."""
    kept = image.media_type.removeprefix("image/")
    if form is None or (form == kept and (form == "png" or quality is None)):
        return image
    check_form(form, kept)
    return await threads.call(lambda: _converted(image, form, quality), name="picture")


def _converted(image: Blob, form: str, quality: int | None) -> Blob:
    from PIL import Image

    image_from_bytes(image.data, param="", types=PICTURES)  # another server's may be of any size
    told = of_png(image.data).text
    with Image.open(io.BytesIO(image.data)) as picture:
        picture.load()
        shown = picture.convert("RGB") if form == "jpeg" and picture.mode != "RGB" else picture
        out = io.BytesIO()
        if form == "png":
            shown.save(out, "PNG")
        else:
            exif = Image.Exif()
            if told:  # where A1111 and its users look for it
                exif.get_ifd(_EXIF)[_USER_COMMENT] = b"UNICODE\0" + told.encode("utf-16-be", "replace")
            shown.save(out, form.upper(), quality=QUALITY[form] if quality is None else max(1, quality), exif=exif)
    return Blob(out.getvalue(), f"image/{form}")
