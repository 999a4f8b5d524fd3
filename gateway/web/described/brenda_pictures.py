"""What Brenda's routes of pictures take and answer."""

from __future__ import annotations

from adapters.brenda import picture_wire as wire
from gateway.web.described.operation import ASKS, Operation, Operations, json, ok

DESCRIBED: Operations = {
    "/v1/images/analyze": {
        "POST": Operation(
            "How well labels fit a picture", body=wire.AnalyzeRequest, replies=ok(json(wire.Analysis)), errors=ASKS
        )
    },
    "/v1/images/ocr": {
        "POST": Operation("The text in a picture", body=wire.OcrRequest, replies=ok(json(wire.OcrReply)), errors=ASKS)
    },
}
