"""What Brenda's routes of translation take and answer."""

from __future__ import annotations

from adapters.brenda import translation
from gateway.web.described.operation import ASKS, Operation, Operations, json, ok, read

DESCRIBED: Operations = {
    "/v1/translation/languages": read(
        Operation("Which languages are translated into which", replies=ok(json(translation.Languages)))
    ),
    "/v1/translation/translate": {
        "POST": Operation(
            "Translate a text, or several",
            "`from_lang` may be `auto`.",
            body=translation.TranslateRequest,
            replies=ok(json(translation.Translated)),
            errors=ASKS,
        )
    },
}
