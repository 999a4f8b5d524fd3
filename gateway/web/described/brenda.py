"""What the routes of the dialect ``brenda`` take and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, structs

from adapters.brenda import wire
from adapters.openai import wire as openai_wire
from gateway.sessions import ID_FORM
from gateway.web.described import brenda_painting, brenda_pictures, brenda_translation
from gateway.web.described.openai import Chat
from gateway.web.described.operation import (
    ASKS,
    CHANGES,
    Operation,
    Operations,
    Parameter,
    frames,
    json,
    ok,
    read,
)


class Message(openai_wire.Message, kw_only=True):
    """A turn; ``ai`` is the assistant."""

    role: Annotated[
        str, Meta(extra_json_schema={"enum": ["system", "developer", "user", "assistant", "ai", "tool", "function"]})
    ]


class ChatRequest(wire.ChatRequest, kw_only=True):
    """OpenAI's request, with instructions beside the messages."""

    messages: Annotated[list[Message], Meta(extra_json_schema={"minItems": 1})]  # type: ignore[assignment]


class Answer(Chat, kw_only=True):
    """The whole answer: OpenAI's, which has more than this API's document says."""


_TEXT = (
    "Server-sent events whose data is plain text: a piece of the answer each. The last is `[DONE]`. "
    'An event called `error` has `{"error": text}` as its data, and is the last.'
)
_ID = "X-Session-ID"
_SESSION = Parameter(
    _ID,
    "header",
    Annotated[str, Meta(pattern=f"^{ID_FORM}$")],
    "The session, as an earlier answer told it; without one a new session begins.",
)

_OPERATIONS: Operations = {
    "/v1/models": read(Operation("List the models' names", replies=ok(json(wire.Models)))),
    "/v1/models/{model:path}": {
        "POST": Operation(
            "Load a model, after a download where one is needed",
            'Failures come as an event, too: `data: {"error": text}`.',
            shown="/v1/models/{model}/load",
            replies=ok(frames(wire.Progress, wire.Status, wire.Error), words="How far it is."),
            errors=CHANGES,
            failure=frames(wire.Error),
        )
    },
    "/v1/chat/completions": {
        "POST": Operation(
            "Answer a conversation, in a session",
            body=ChatRequest,
            replies=ok(json(Answer), frames(words=_TEXT), words="The answer; a stream where `stream` is true."),
            errors=(*ASKS, 507),
            asks=True,
        )
    },
    "/v1/session": {
        "GET": Operation("The session, and its model", replies=ok(json(wire.Session)), errors=(502, 504, 507))
    },
    **brenda_painting.DESCRIBED,
    **brenda_pictures.DESCRIBED,
    **brenda_translation.DESCRIBED,
}
_STOP = Operation(
    "Stop the session's generation",
    parameters=(structs.replace(_SESSION, required=True),),
    replies=ok(json(wire.Stopped)),
    errors=(507,),
)


def _in_session(operation: Operation) -> Operation:
    replies = {status: structs.replace(reply, headers=(_ID,)) for status, reply in operation.replies.items()}
    return structs.replace(operation, parameters=(*operation.parameters, _SESSION), replies=replies)


DESCRIBED: Operations = {
    "/v1/stop": {"POST": _STOP},
    **{path: {method: _in_session(one) for method, one in methods.items()} for path, methods in _OPERATIONS.items()},
}
