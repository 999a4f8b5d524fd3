"""A worker process that reads: one set of models. ``python -m backends.ocr.worker``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backends.ocr.start import Start
from backends.seeing.asking import Answered, Asked, Lines, Text
from backends.seeing.serving import serving
from backends.workers import desk
from backends.workers.desk import Far, Serve

_start = msgspec.msgpack.Decoder(Start)


def load(start: bytes, far: Far) -> Serve:
    """See ``desk.Load``."""
    from backends.ocr.engine import Reader  # here, so that a failure of its libraries is told

    far(0.0)
    reader = Reader(_start.decode(start))

    def look(question: Asked, step: Callable[[], None]) -> Answered:
        if not isinstance(question, Text):
            raise TypeError("text is read here, and nothing else")
        return Lines(reader.lines(question.image, step))

    return serving(look)


if __name__ == "__main__":
    desk.main(load)
