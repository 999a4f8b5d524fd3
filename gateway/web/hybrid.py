"""The URL map of the dialect ``hybrid``."""

from __future__ import annotations

from adapters.hybrid.errors import error_body, error_status
from gateway.web.exchange import Handler, Voice

VOICE = Voice("hybrid", b"application/json", error_status, error_body)
PREFIXES = ("/chat", "/models/", "/help")
ROUTES: dict[str, dict[str, Handler]] = {}
