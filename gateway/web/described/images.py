"""What the routes of the dialect ``images`` take and answer."""

from __future__ import annotations

from gateway.web.described.operation import Operations

DESCRIBED: Operations = {}
