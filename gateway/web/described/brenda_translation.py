"""What Brenda's routes of translation take and answer."""

from __future__ import annotations

from adapters.brenda import translation_wire as wire
from gateway.web.described.operation import ASKS, Operation, Operations, json, ok, read

DESCRIBED: Operations = {
    "/v1/translation/languages": read(
        Operation("Which languages are translated into which", replies=ok(json(wire.Languages)))
    ),
    "/v1/translation/translate": {
        "POST": Operation(
            "Translate a text, or several",
            "`from_lang` may be `auto`.",
            body=wire.TranslateRequest,
            replies=ok(json(wire.Translated)),
            errors=ASKS,
        )
    },
}
