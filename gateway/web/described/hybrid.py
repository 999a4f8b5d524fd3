"""What the hybrid API's routes take and answer."""

from __future__ import annotations

from adapters.hybrid import wire
from gateway.web.described.operation import ASKS, LOOKS, Operation, Operations, Reply, json, lines, ok, read

Error = wire.Refused

_INVALID = {422: Reply("The body breaks the format.", (json(wire.Invalid),))}


def _chat(who: str) -> dict[str, Operation]:
    return {
        "POST": Operation(
            f"Chat with {who}",
            body=wire.ChatRequest,
            replies={**ok(json(wire.ChatReply)), **_INVALID},
            errors=ASKS,
            asks=True,
        )
    }


def _stream(who: str) -> dict[str, Operation]:
    return {
        "POST": Operation(
            f"Chat with {who}, the answer coming piece by piece",
            body=wire.ChatRequest,
            replies={**ok(lines(wire.Fragment, wire.Done, wire.Failed)), **_INVALID},
            errors=ASKS,
            asks=True,
        )
    }


_ANY = "the model that is named, or a default"
_REGULAR = "the default model for text"
_VISION = "the default model for pictures"

DESCRIBED: Operations = {
    "/health": read(Operation("Tell how the gateway is", replies=ok(json(wire.Health)))),
    "/help": read(Operation("Tell what this API can be asked", replies=ok(json(wire.Help)))),
    "/models": read(Operation("List the models that are loaded", replies=ok(json(list[wire.ModelRow])), errors=LOOKS)),
    "/models/load": {
        "POST": Operation(
            "Load a model; with exclusive, unload all others first",
            body=wire.LoadRequest,
            replies={**ok(json(wire.Loaded)), **_INVALID},
        )
    },
    "/models/unload": {
        "POST": Operation(
            "Unload one model, or all",
            body=wire.UnloadRequest,
            replies={**ok(json(wire.Unloaded)), **_INVALID},
        )
    },
    "/chat": _chat(_ANY),
    "/chat/stream": _stream(_ANY),
    "/chat/regular": _chat(_REGULAR),
    "/chat/regular/stream": _stream(_REGULAR),
    "/chat/vision": _chat(_VISION),
    "/chat/vision/stream": _stream(_VISION),
}
