"""The dialect ``hybrid``, told."""

from __future__ import annotations

from gateway.web.described.operation import Operations

DESCRIBED: Operations = {}
