"""What the conversation service's routes take and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from adapters.conversation import wire
from adapters.conversation.serve import ID_FORM, ID_LIMIT
from gateway.web.described import ollama
from gateway.web.described.operation import (
    ASKS,
    KEEPS,
    Operation,
    Operations,
    Parameter,
    Reply,
    frames,
    json,
    lines,
    ok,
    read,
)


class Line(ollama.GenerateLine, kw_only=True):
    """A line of Ollama's."""


class Failed(Struct):
    """The last line of an answer that failed."""

    error: str


_INVALID = {422: Reply("A part of the request is missing, or is not what it should be.", (json(wire.Invalid),))}
Name = Annotated[str, Meta(max_length=ID_LIMIT, pattern=f"^{ID_FORM}$")]
_ID = Parameter("conv_id", "query", Name, "What the conversation is to be called.", required=True)
_NAMED = Parameter("conv_id", "path", Name, "What the conversation is called.")
_CONVERSATION = Operation(
    "All of a conversation",
    parameters=(_NAMED,),
    replies={**ok(json(wire.Conversation)), **_INVALID},
    errors=KEEPS,
)

DESCRIBED: Operations = {
    "/generate": {
        "POST": Operation(
            "Answer a prompt, an event for each line of Ollama's",
            "With `Accept: application/x-ndjson` the lines come as they are.",
            body=wire.Query,
            replies={**ok(frames(Line, Failed), lines(Line, Failed), words="The answer, piece by piece."), **_INVALID},
            errors=ASKS,
            asks=True,
        )
    },
    "/api/models": read(Operation("List the models that chat", replies=ok(json(list[wire.ModelRow])))),
    "/api/conversation/start": {
        "POST": Operation(
            "Begin a conversation",
            "An id that is taken is refused, with status 400.",
            parameters=(_ID,),
            replies={**ok(json(wire.Started)), **_INVALID},
            errors=(507,),
        ),
        **read(Operation("The conversation that is called `start`", replies=ok(json(wire.Conversation)), errors=KEEPS)),
    },
    "/api/conversation/{conv_id:str}": read(_CONVERSATION),
    "/api/conversation/{conv_id:str}/message": {
        "POST": Operation(
            "Say something in a conversation, and be answered",
            body=wire.Query,
            parameters=(_NAMED,),
            replies={**ok(json(wire.Answered)), **_INVALID},
            errors=(*ASKS, 507),
            asks=True,
        )
    },
}
