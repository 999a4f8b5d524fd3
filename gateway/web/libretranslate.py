"""The URL map of the dialect ``libretranslate``."""

from __future__ import annotations

from adapters.libretranslate.errors import error_body, error_status
from gateway.web.exchange import Handler, Voice

VOICE = Voice("libretranslate", b"application/json", error_status, error_body)
PREFIXES = ("/translate", "/languages", "/detect")
ROUTES: dict[str, dict[str, Handler]] = {}
