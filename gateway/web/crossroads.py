"""Paths with two owners: who answers is decided by what the request shows, or all do together.

A path that is not here has one owner for each of its methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from adapters.openai import serve
from canonical.errors import InvalidRequest
from canonical.limits import check_extent
from canonical.models import CHATS
from gateway.router import lacks
from gateway.web.exchange import Exchange, Handler
from gateway.web.hybrid import loaded
from gateway.web.in_session import HEADER as SESSION
from gateway.web.in_session import sent, told

Headers = Iterable[tuple[bytes, bytes]]
Choose = Callable[[Exchange, Sequence[str], Sequence[str]], Awaitable[str]]
"""A request, those who know its method, all who claim its path -> the one that answers; empty: all together (``MERGED``).

Both are in the listener's order. The body can be read again at no cost.
"""


def by_version(headers: Headers, claimants: Sequence[str]) -> str:
    """Anthropic's clients all send ``anthropic-version``; everybody else gets the first of the others."""
    if any(name == b"anthropic-version" for name, _ in headers):
        return "anthropic"
    return next((name for name in claimants if name != "anthropic"), "")


class _Message(Struct):
    role: Raw | UnsetType = UNSET


class _Marked(Struct):
    system: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET


_marked = msgspec.json.Decoder(_Marked)
_messages = msgspec.json.Decoder(list[_Message])


def has_marks(headers: Headers, body: bytes) -> bool:
    """Whether a chat is Brenda's: of a session, with instructions beside the messages, or with the role ``ai``."""
    if any(name == SESSION for name, _ in headers):
        return True
    if b'"system"' not in body and b'"ai"' not in body:  # nearly always decided here, or by one quick look
        return False
    try:
        check_extent(body)  # whoever gets it refuses it for the same reason
        found = _marked.decode(body)
        said = bytes(found.messages) if found.messages is not UNSET else b"[]"
        if found.system is not UNSET or b'"ai"' not in said:
            return found.system is not UNSET and said[:1] == b"["
        messages = _messages.decode(said)
    except (msgspec.MsgspecError, RecursionError, InvalidRequest):
        return False
    return any(message.role is not UNSET and bytes(message.role) == b'"ai"' for message in messages)


async def _by_version(exchange: Exchange, owners: Sequence[str], claimants: Sequence[str]) -> str:
    if "anthropic" in claimants and by_version(exchange.scope["headers"], claimants) == "anthropic":
        return "anthropic"
    return "" if "openai" in owners and "brenda" in owners else by_version((), owners)


async def _by_marks(exchange: Exchange, owners: Sequence[str], _: Sequence[str]) -> str:
    marked = has_marks(exchange.scope["headers"], await exchange.body())
    return "brenda" if marked else next(name for name in owners if name != "brenda")


async def _by_place(_: Exchange, owners: Sequence[str], claimants: Sequence[str]) -> str:
    """Where the hybrid API stands before all others its clients get the bare list that they know; else all answer together."""
    return "hybrid" if claimants[0] == "hybrid" else "" if "hybrid" in owners else owners[0]


async def _by_plenty(_: Exchange, owners: Sequence[str], __: Sequence[str]) -> str:
    """The hybrid API's answer has all that others' have."""
    return "hybrid" if "hybrid" in owners else owners[0]


CROSSROADS: dict[str, Choose] = {
    "/health": _by_plenty,
    "/models": _by_place,
    "/v1/models": _by_version,
    "/v1/models/{model:path}": _by_version,
    "/v1/chat/completions": _by_marks,
}


async def _models(exchange: Exchange) -> None:
    """OpenAI's list, and Brenda's names beside it; in a session, for nothing tells who has none yet from who wants none."""
    headers = exchange.scope["headers"]
    sent(headers)  # or it is refused
    rows = list(await exchange.engine.models())
    names = msgspec.json.encode([row.id for row in rows if not lacks(CHATS, row)])
    await exchange.json(serve.models_reply(rows)[:-1] + b',"models":' + names + b"}", headers=told(headers))


async def _bare_models(exchange: Exchange) -> None:
    """OpenAI's list, and what is loaded beside it."""
    rows = list(await exchange.engine.models())
    await exchange.json(serve.models_reply(rows)[:-1] + b',"models":' + await loaded(exchange) + b"}")


MERGED: dict[str, dict[str, Handler]] = {
    "/models": {"GET": _bare_models, "HEAD": _bare_models},
    "/v1/models": {"GET": _models, "HEAD": _models},
}
"""What all claimants of a path answer together."""
