"""The conversation service's own field names, nothing else. Unknown fields are ignored, as FastAPI's models do."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Query(Struct):
    """``POST /generate``, and a message to a conversation."""

    prompt: Annotated[str, Meta(min_length=1, description="What the user says.")]
    model: Annotated[
        str | None, Meta(description="Without one `mistral` answers, or the default model where there is no `mistral`.")
    ] = None


class ModelRow(Struct):
    """A row of ``GET /api/models``."""

    model: Annotated[str, Meta(description="The name to ask it by.")]
    version: Annotated[str, Meta(description="The tag in its name; `latest` where the name has none.")]


class UserMessage(Struct, kw_only=True, omit_defaults=True, tag_field="role", tag="user"):
    """What the user said."""

    content: str
    timestamp: str
    state: Literal["waiting", "answering", "answered", "failed"]
    error: Annotated[str, Meta(description="Why there is no answer.")] = ""


class AssistantMessage(Struct, kw_only=True, omit_defaults=True, tag_field="role", tag="assistant"):
    """What the model answered."""

    content: str
    timestamp: str
    state: Annotated[
        Literal["complete", "cut"], Meta(description="`cut`: the model came to its limit before the end of its answer.")
    ]
    model: str
    left_out: Annotated[
        int, Meta(description="Earlier messages that the model was not told, since its context holds no more.")
    ] = 0


class Conversation(Struct):
    """``GET /api/conversation/{conv_id}``."""

    id: str
    messages: list[UserMessage | AssistantMessage]


class Started(Struct):
    """The answer to ``POST /api/conversation/start``: what the service said, and the conversation itself."""

    message: str
    id: str
    messages: list[UserMessage | AssistantMessage]


class Answered(Struct, kw_only=True, omit_defaults=True, tag_field="role", tag="assistant"):
    """The answer to a message: the model's, as it is kept; ``generated_text`` is its text once more, under its older name."""

    generated_text: str
    content: str
    timestamp: str
    state: Literal["complete", "cut"]
    model: str
    left_out: int = 0


class Place(Struct, omit_defaults=True):
    """What is wrong with a request, in FastAPI's form; ``loc`` leads to it."""

    type: str
    loc: list[str | int]
    msg: str


class Invalid(Struct):
    """The body of a 422."""

    detail: list[Place]


class Refused(Struct):
    """The body of any other error."""

    detail: str
