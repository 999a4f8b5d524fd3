"""The URL map of translation in the dialect ``brenda``."""

from __future__ import annotations

from gateway.web.exchange import Handler

ROUTES: dict[str, dict[str, Handler]] = {}
