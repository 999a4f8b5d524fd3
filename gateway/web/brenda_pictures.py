"""What Brenda's dialect tells of pictures: how well labels fit one, and the text in it."""

from __future__ import annotations

from gateway.web.exchange import Handler

ROUTES: dict[str, dict[str, Handler]] = {}
