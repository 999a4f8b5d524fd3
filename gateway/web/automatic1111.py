"""The URL map of the dialect ``automatic1111``: AUTOMATIC1111's API."""

from __future__ import annotations

from adapters.automatic1111.errors import error_body, error_status
from gateway.web.exchange import Handler
from gateway.web.voice import Voice

VOICE = Voice("automatic1111", b"application/json", error_status, error_body)
PREFIXES = ("/sdapi",)

ROUTES: dict[str, dict[str, Handler]] = {}
