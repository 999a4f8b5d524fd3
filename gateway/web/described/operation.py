"""The words in which a dialect tells what its routes take and answer.

    "/api/show": {"POST": Operation("Tell of a model", body=wire.ShowRequest, replies=ok(json(wire.Shown)), errors=LOOKS)}

What the statuses of errors mean is told by ``canonical.errors``.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

JSON = "application/json"
NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
TEXT = "text/plain"
BYTES = "application/octet-stream"

# Statuses of errors, which ``canonical.errors`` explains. Every operation may answer ALWAYS.
ALWAYS = (400, 401, 403, 408, 413, 415, 431, 500, 503)
LOOKS = (404, 502, 504)
"""Of a route that looks a model up."""
ASKS = (404, 422, 429, 501, 502, 504)
"""Of a route that asks a model."""
KEEPS = (404, 507)
"""Of a route that keeps something, or finds what was kept."""
CHANGES = (404, 409, 501, 502, 504, 507)
"""Of a route that changes which models there are."""


class Form(Struct, frozen=True):
    """A body of one media type."""

    media_type: str
    types: tuple[Any, ...] = ()
    """What the body is: any of these; none: text, or bytes."""
    words: str = ""


def json(*types: Any, words: str = "") -> Form:
    """One JSON value, of any of these types."""
    return Form(JSON, types, words)


def lines(*types: Any) -> Form:
    """JSON values, a line each."""
    return Form(NDJSON, types, "A JSON value a line, each as described.")


def frames(*types: Any, words: str = "") -> Form:
    """Server-sent events. Without types their data is plain text."""
    return Form(SSE, types, words or "Server-sent events; what is described is the data of each.")


def text(words: str) -> Form:
    """Plain text."""
    return Form(TEXT, (), words)


class Reply(Struct, frozen=True):
    """What an operation answers with one status."""

    words: str
    forms: tuple[Form, ...] = ()
    headers: tuple[str, ...] = ()


def ok(*forms: Form, words: str = "Done.", headers: tuple[str, ...] = ()) -> dict[int, Reply]:
    """The replies of an operation that has one."""
    return {200: Reply(words, forms, headers)}


class Parameter(Struct, frozen=True):
    """What stands in the path, the query or a header."""

    name: str
    place: Literal["path", "query", "header"]
    type: Any = str
    words: str = ""
    required: bool = False


class Operation(Struct, frozen=True):
    """One method of one route."""

    summary: str
    words: str = ""
    body: Any = None
    """The type of the JSON body, or a ``Form`` of another; None: there is none."""
    forms: tuple[Form, ...] = ()
    """What the body may be besides."""
    needs: tuple[str, ...] = ()
    """Fields of the body without which it is refused, though its struct reads them as missing."""
    may_lack_body: bool = False
    parameters: tuple[Parameter, ...] = ()
    """Those of the path are known by themselves as strings."""
    replies: dict[int, Reply] = {}
    errors: tuple[int, ...] = ()
    """Besides ALWAYS."""
    error: Any = None
    """The type of an error's body, where it is not the dialect's."""
    asks: bool = False
    """Whether a model is asked, so that the gateway's own headers have a meaning."""
    open: bool = False
    """Whether it needs no key."""
    shown: str = ""
    """The path to show, where the route's is wider than what it answers."""
    failure: Form | None = None
    """In what form errors come, where that is not JSON."""


Operations = dict[str, dict[str, Operation]]
"""Path -> method -> what it does; HEAD goes with GET."""


def read(operation: Operation) -> dict[str, Operation]:
    """The methods of a path that is only read."""
    return {"GET": operation, "HEAD": operation}


class Described(Struct, frozen=True):
    """A dialect, told."""

    title: str
    label: str
    """Before the names of its structs."""
    words: str
    error: Any
    operations: Operations
