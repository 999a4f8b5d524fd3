"""Us as the conversation service: requests read, and replies worded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qs

from msgspec import Struct, structs

from adapters.conversation import wire
from adapters.conversation.errors import error_body, error_status, invalid, missing, unreadable
from adapters.conversation.generate import generate_ask
from adapters.conversation.wire import AssistantMessage, UserMessage
from adapters.framing import encode_line
from adapters.ollama.names import short
from adapters.ollama.times import rfc3339
from adapters.reading import Reading, read_request, shape_of
from canonical.errors import InvalidRequest
from canonical.messages import Message, Text
from canonical.models import ModelInfo
from canonical.origin import Origin, Vocabulary
from canonical.requests import Generate

__all__ = [
    "USUAL",
    "AssistantMessage",
    "Question",
    "UserMessage",
    "answered_reply",
    "conversation_reply",
    "error_body",
    "error_status",
    "generate_ask",
    "models_reply",
    "read_id",
    "read_query",
    "read_start",
    "rfc3339",
    "started_reply",
    "wants_lines",
]

USUAL = "mistral"
"""The model of a request that names none, where there is one of this name."""
ID_LIMIT = 128
QUERY_LIMIT = 16 * 1024
"""Bytes of a query string: an id of the longest, percent-encoded, and whatever else a client adds."""

VOCABULARY = Vocabulary(known=frozenset(shape_of(wire.Query)))

ID_FORM = r"[^\W_]([\w .:~@+=,!'()-]*[\w.~@+=!')-])?"
"""A conversation's id, whole."""
_ID = re.compile(ID_FORM)
_query = Reading(wire.Query)


class Question(Struct, frozen=True):
    """A prompt, and who is to answer it."""

    prompt: str
    model: str
    """Empty: the client names none."""
    origin: Origin

    def asked(self, model: str, before: Sequence[Message] = ()) -> Generate:
        """The request to ``model``, with what was said ``before``."""
        said = Message("user", (Text(self.prompt),))
        return Generate(model=model, messages=(*before, said), origin=self.origin)


def read_query(body: bytes) -> Question:
    """A ``Query``. Raises InvalidRequest."""
    try:
        asked, plain = read_request(_query, body, invalid)
    except InvalidRequest as error:
        raise error if error.param else unreadable(error.message, "body", "json_invalid") from error
    return Question(asked.prompt, asked.model or "", Origin("conversation", body, VOCABULARY, plain=plain))


def read_start(query: bytes) -> str:
    """The id in the query string of ``/api/conversation/start``. Raises InvalidRequest."""
    if len(query) > QUERY_LIMIT:
        raise unreadable(f"the query may have at most {QUERY_LIMIT} bytes", "query")
    try:
        given = parse_qs(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:  # not UTF-8, or too many fields
        raise unreadable("the query cannot be read", "query") from error
    ids = given.get("conv_id")
    if ids is None:
        raise missing("query.conv_id")
    if len(ids) > 1:
        raise unreadable("conv_id stands there twice", "query.conv_id")
    return read_id(ids[0], "query")


def read_id(text: str, part: str = "path") -> str:
    """A conversation's id: what a person or a program would call one, in any script; and nothing that could be a path.

    Raises InvalidRequest, which says in which ``part`` of the request it stands.
    """
    if len(text) > ID_LIMIT:
        raise unreadable(f"an id has at most {ID_LIMIT} characters", f"{part}.conv_id", "string_too_long")
    if _ID.fullmatch(text) is None:
        raise unreadable(
            "an id begins with a letter or a digit; letters, digits, spaces and _ . : ~ @ + = , ! ' ( ) - may follow",
            f"{part}.conv_id",
            "string_pattern_mismatch",
        )
    return text


def wants_lines(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether ``Accept`` asks for lines of JSON, and not for events."""
    accept = b",".join(value.lower() for name, value in headers if name == b"accept")
    return b"ndjson" in accept and b"event-stream" not in accept


def models_reply(models: Iterable[ModelInfo]) -> bytes:
    """``GET /api/models``: ``model`` is what a query may name, ``version`` the tag in it."""
    rows = []
    for info in models:
        name = short(info.id)
        _, colon, tag = name.rpartition(":")
        rows.append(wire.ModelRow(name.removesuffix(":latest"), tag if colon and "/" not in tag else "latest"))
    return encode_line(rows)


def started_reply(id: str) -> bytes:
    """A conversation that has begun."""
    return encode_line(wire.Started(f"Conversation {id} started", id, []))


def conversation_reply(id: str, messages: Sequence[UserMessage | AssistantMessage]) -> bytes:
    """All of a conversation."""
    return encode_line(wire.Conversation(id, list(messages)))


def answered_reply(answer: AssistantMessage) -> bytes:
    """The model's answer."""
    return encode_line(wire.Answered(generated_text=answer.content, **structs.asdict(answer)))
