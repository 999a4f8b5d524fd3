"""The URL map of the dialect ``images``: pictures as jobs."""

from __future__ import annotations

from adapters.images.errors import error_body, error_status
from gateway.web.exchange import Handler
from gateway.web.voice import Voice

VOICE = Voice("images", b"application/json", error_status, error_body)
PREFIXES = ("/generate", "/status", "/image", "/download", "/jobs", "/loras")

ROUTES: dict[str, dict[str, Handler]] = {}
