"""What a picture is painted on: nothing, a picture, or the part of one that a mask leaves open. Runs in a worker process."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct
from PIL import Image, ImageOps

from backends.diffusers.pictures import opened, opened_mask
from canonical.painting import Paint

_HALF = 128


class Canvas(Struct, frozen=True):
    """It in the picture's size. ``mask``: where it is white all is new, where it is black nothing."""

    size: tuple[int, int]
    image: Image.Image | None = None
    mask: Image.Image | None = None

    @classmethod
    def of(cls, request: Paint, *, masked: bool = False) -> Canvas:
        """What a complete request brings; ``masked``: the model knows no pictures without a mask.

        Raises:
            Wrong: it cannot be decoded.
        """
        size = (request.width or 0, request.height or 0)
        if request.image is None:
            return cls(size)
        image = opened(request.image, size, "image")
        if request.mask is None:
            return cls(size, image, Image.new("L", size, 255) if masked else None)
        mask = opened_mask(request.mask, size, by_alpha=request.mask_alpha)
        return cls(size, image, ImageOps.invert(mask) if request.mask_invert else mask)

    @property
    def kind(self) -> Literal["text", "image", "mask"]:
        """Which pipeline paints on it."""
        return "text" if self.image is None else "image" if self.mask is None else "mask"

    def arguments(self, made: Paint) -> dict[str, Any]:
        """For the call of that pipeline."""
        sides: dict[str, Any] = {"width": self.size[0], "height": self.size[1]}
        if self.image is None:
            return sides
        if self.mask is None:
            return {"image": self.image, "strength": made.strength}
        hard = self.mask.point(lambda grey: 255 if grey >= _HALF else 0)
        return {"image": self.image, "mask_image": hard, "strength": made.strength, **sides}

    def finished(self, painted: Image.Image) -> Image.Image:
        """The picture, with exactly what was there wherever the mask is black."""
        if self.image is None or self.mask is None:
            return painted
        return Image.composite(painted, self.image, self.mask)
