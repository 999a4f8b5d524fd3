"""What Brenda's routes that make pictures take and answer."""

from __future__ import annotations

from adapters.brenda import painting_wire, wire
from gateway.web.described.operation import ASKS, Operation, Operations, frames, json, ok, read

_EVENTS = frames(wire.Progress, painting_wire.Painted, wire.Error)
_FAILS = 'Failures come as an event, too: `data: {"error": text}`.'
_FAILED = frames(wire.Error)

DESCRIBED: Operations = {
    "/v1/images/generate": {
        "POST": Operation(
            "Make a picture",
            _FAILS,
            body=painting_wire.GenerateRequest,
            replies=ok(_EVENTS, words="How far it is, and at last the picture."),
            errors=(*ASKS, 507),
            failure=_FAILED,
        )
    },
    "/v1/images/models": read(Operation("List the models that make pictures", replies=ok(json(wire.Models)))),
    "/v1/images/refine": {
        "POST": Operation(
            "Make a picture anew",
            f"`strength` is 0.3 and `steps` 20 where they are not said. {_FAILS}",
            body=painting_wire.RefineRequest,
            replies=ok(_EVENTS, words="How far it is, and at last the picture."),
            errors=(*ASKS, 507),
            failure=_FAILED,
        )
    },
}
