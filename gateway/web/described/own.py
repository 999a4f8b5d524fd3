"""The document itself and its page, told."""

from __future__ import annotations

from typing import Any

from gateway.web.described.operation import Form, Operation, Operations, json, ok, read, text

_DOCUMENT = Operation(
    "This document", "What this port serves, as OpenAPI 3.1.", replies=ok(json(dict[str, Any], words="OpenAPI 3.1."))
)

DESCRIBED: Operations = {
    "/openapi.json": read(_DOCUMENT),
    "/schema/openapi.json": read(_DOCUMENT),
    "/schema": read(
        Operation(
            "This document as a page", "It asks for nothing else and runs nothing.", replies=ok(Form("text/html"))
        )
    ),
    "/help": read(Operation("Where to read on", replies=ok(text("A few lines.")))),
}
