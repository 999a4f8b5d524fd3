"""A worker process that paints: one model. ``python -m backends.diffusers.worker``."""

from __future__ import annotations

import msgspec

from backends.diffusers.start import Start
from backends.workers import desk
from backends.workers.desk import Far, Serve

_start = msgspec.msgpack.Decoder(Start)


def load(start: bytes, far: Far) -> Serve:
    """See ``desk.Load``."""
    from backends.diffusers.serving import serving  # here, so that a failure of torch itself is told

    far(0.0)
    return serving(_start.decode(start), far)


if __name__ == "__main__":
    desk.main(load)
