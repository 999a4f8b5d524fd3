"""What a worker of CLIP is started for."""

from __future__ import annotations

from msgspec import Struct

from backends.clip.settings import Device, Type


class Start(Struct, frozen=True, kw_only=True):
    """One model, and how it runs."""

    path: str
    template: str
    device: Device = "auto"
    dtype: Type = "auto"
    threads: int = 1
