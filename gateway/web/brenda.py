"""The URL map of the dialect ``brenda``."""

from __future__ import annotations

from adapters.brenda.errors import error_body, error_status
from gateway.web.exchange import Handler, Voice

VOICE = Voice("brenda", b"application/json", error_status, error_body)
PREFIXES = ("/v1/session", "/v1/stop", "/v1/images/", "/v1/translation/")
ROUTES: dict[str, dict[str, Handler]] = {}
