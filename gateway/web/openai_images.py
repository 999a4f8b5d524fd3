"""OpenAI's image API."""

from __future__ import annotations

from gateway.web.exchange import Handler

ROUTES: dict[str, dict[str, Handler]] = {}
