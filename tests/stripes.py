"""A backend that paints echo's stripes and does nothing else, for gateways that are started as processes."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from backends.echo import EchoBackend, EchoSettings
from canonical.models import Capability


class StripesBackend(EchoBackend):
    """Its one model is called ``echo``."""

    def __init__(self, name: str, settings: EchoSettings, base: Path = Path()) -> None:
        super().__init__(name, settings, base)
        self._info = structs.replace(self._info, capabilities=frozenset({Capability.PAINT}))
