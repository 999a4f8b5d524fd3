"""The document itself and its page, told."""

from __future__ import annotations

from typing import Any

from gateway.web.described.operation import Form, Operation, Operations, Reply, json, ok, read, text

_DOCUMENT = Operation(
    "This document", "What this port serves, as OpenAPI 3.1.", replies=ok(json(dict[str, Any], words="OpenAPI 3.1."))
)

_ELSEWHERE = Operation(
    "Where the page is", replies={307: Reply("At `/schema`.", (text("The path."),), headers=("Location",))}
)

DESCRIBED: Operations = {
    "/docs": read(_ELSEWHERE),
    "/redoc": read(_ELSEWHERE),
    "/openapi.json": read(_DOCUMENT),
    "/schema/openapi.json": read(_DOCUMENT),
    "/schema": read(
        Operation(
            "This document as a page", "It asks for nothing else and runs nothing.", replies=ok(Form("text/html"))
        )
    ),
    "/help": read(Operation("Where to read on", replies=ok(text("A few lines.")))),
}
