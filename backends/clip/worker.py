"""A worker process of CLIP: one model. ``python -m backends.clip.worker``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from backends.clip.start import Start
from backends.seeing.asking import Answered, Asked, Labels, Shares
from backends.seeing.serving import serving
from backends.workers import desk
from backends.workers.desk import Far, Serve

_start = msgspec.msgpack.Decoder(Start)


def load(start: bytes, far: Far) -> Serve:
    """See ``desk.Load``."""
    from backends.clip.engine import Clip  # here, so that a failure of torch itself is told

    far(0.0)
    clip = Clip(_start.decode(start))

    def look(question: Asked, step: Callable[[], None]) -> Answered:
        if not isinstance(question, Labels):
            raise TypeError("labels are matched here, and nothing else")
        return Shares(clip.shares(question.image, question.labels, step))

    return serving(look)


if __name__ == "__main__":
    desk.main(load)
