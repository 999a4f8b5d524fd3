"""The URL map of the dialect ``conversation``."""

from __future__ import annotations

from adapters.conversation.errors import error_body, error_status
from gateway.web.exchange import Handler, Voice

VOICE = Voice("conversation", b"application/json", error_status, error_body)
PREFIXES = ("/api/models", "/api/conversation/", "/generate")
ROUTES: dict[str, dict[str, Handler]] = {}
