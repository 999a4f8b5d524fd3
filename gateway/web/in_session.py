"""``X-Session-ID``: read off a request, made where it is missing, and told with every answer.

The id that an answer tells can always be sent back, also when it came with a refusal: a session is nothing but its id until
it has a model.
"""

from __future__ import annotations

from collections.abc import Iterable

from canonical.errors import InvalidRequest, StorageFailed
from gateway.sessions import SessionId, Sessions, is_id, new_id
from gateway.web.exchange import Exchange, Handler

HEADER = b"x-session-id"
_UNSET = frozenset({b"", b"null", b"undefined"})
"""What pages send that have no id yet: else all of them would be in one session."""


def told(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The header of the answer, by those of the request: its own id, or a new one."""
    try:
        id = sent(headers)
    except InvalidRequest:
        id = ""
    return [(HEADER, (id or new_id()).encode())]


def sent(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id that a request came with; empty: none.

    Raises:
        InvalidRequest: it is none, or there are two.
    """
    found = {value for name, value in headers if name == HEADER} - _UNSET
    if not found:
        return ""
    id = found.pop().decode("latin-1")
    if found or not is_id(id):
        raise InvalidRequest(
            "X-Session-ID must be one id: 1 to 128 letters, digits and . _ ~ : @ + = { } -", param="X-Session-ID"
        )
    return id


def session(exchange: Exchange) -> SessionId:
    """The request's session."""
    return SessionId(exchange.caller.owner, sent(exchange.scope["headers"]))


def sessions_of(exchange: Exchange) -> Sessions:
    """All sessions. Raises StorageFailed where nothing is kept."""
    sessions = exchange.gateway.sessions
    if sessions is None:
        raise StorageFailed("this gateway keeps no sessions")
    return sessions


def in_session(handler: Handler) -> Handler:
    """``handler`` for requests that all have an id, be it a new one."""

    async def handle(exchange: Exchange) -> None:
        headers = exchange.scope["headers"]
        if not sent(headers):
            others = [(name, value) for name, value in headers if name != HEADER]
            exchange.scope["headers"] = [*others, (HEADER, new_id().encode())]
        await handler(exchange)

    return handle
