"""What Brenda's dialect paints: pictures of a prompt, and others made anew."""

from __future__ import annotations

from gateway.web.exchange import Handler

ROUTES: dict[str, dict[str, Handler]] = {}
