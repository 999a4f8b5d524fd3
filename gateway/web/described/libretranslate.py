"""What LibreTranslate's routes take and answer."""

from __future__ import annotations

from adapters.libretranslate import wire
from gateway.web.described.operation import ASKS, Operation, Operations, Parameter, json, ok, read

_FORMS = "The body may be a form, too, in parts or not; a key may stand in it, or in the query, as `api_key`."
_KEY = Parameter("api_key", "query", str, "A key, for clients that send none in a header.")
_NOT_HERE = "This gateway does not have that: the answer is always 403."

DESCRIBED: Operations = {
    "/translate": {
        "POST": Operation(
            "Translate a text, or several, or HTML",
            f"`source` may be `auto`. {_FORMS}",
            body=wire.TranslateRequest,
            needs=("q", "source", "target"),
            parameters=(_KEY,),
            replies=ok(json(wire.Translated)),
            errors=ASKS,
        )
    },
    "/detect": {
        "POST": Operation(
            "Tell which language a text is in",
            _FORMS,
            body=wire.DetectRequest,
            needs=("q",),
            parameters=(_KEY,),
            replies=ok(json(list[wire.Detected])),
            errors=ASKS,
        )
    },
    "/languages": read(
        Operation(
            "List the languages, and what each is translated into",
            parameters=(_KEY,),
            replies=ok(json(list[wire.Language])),
        )
    ),
    "/frontend/settings": read(
        Operation("Tell a page what it may do", parameters=(_KEY,), replies=ok(json(wire.Settings)))
    ),
    "/health": read(Operation("Tell that the gateway is there", replies=ok(json(wire.Health)))),
    "/suggest": {"POST": Operation("Suggest a better translation", _NOT_HERE, errors=(403,))},
    "/translate_file": {"POST": Operation("Translate a file", _NOT_HERE, errors=(403,))},
}
