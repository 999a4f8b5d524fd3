"""Pictures to take after, through an IP-Adapter: runs in a worker process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

from backends.seeing.serving import Wrong


class References:
    """The IP-Adapter of one pipeline; ``place``: its folder or file, empty where there is none."""

    def __init__(self, pipe: Any, place: str) -> None:
        self._pipe = pipe
        self._place = place

    @contextlib.contextmanager
    def worn(self, image: Image.Image, scale: float) -> Iterator[dict[str, Any]]:
        """Within it the pipeline takes after the picture; what it gives are arguments for the call.

        Raises:
            Wrong: there is no adapter.
        """
        del image, scale
        raise Wrong("this model has no IP-Adapter", "reference")
        yield {}
