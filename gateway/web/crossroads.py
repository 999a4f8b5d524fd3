"""Paths with two owners: who answers is decided by what the request shows, or all do together.

A path that is not here has one owner for each of its methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, to_builtins

from adapters.images.wire import GenerateRequest
from adapters.openai import serve
from canonical.errors import GatewayError, InvalidRequest
from canonical.limits import check_extent
from canonical.models import CHATS, Capability
from gateway.engine import Engine
from gateway.painting import PAINT, painters
from gateway.router import lacks
from gateway.web.exchange import Exchange
from gateway.web.hybrid import loaded
from gateway.web.images import model_rows
from gateway.web.in_session import HEADER as SESSION
from gateway.web.in_session import sent, told
from gateway.web.openai import LISTED

Headers = Iterable[tuple[bytes, bytes]]
Choose = Callable[[Exchange, Sequence[str], Sequence[str]], Awaitable[str]]
"""A request, those who know its method, all who claim its path -> the one that answers; empty: all together (``MERGED``).

Both are in the listener's order. The body can be read again at no cost.
"""

Together = Callable[[Exchange, Sequence[str]], Awaitable[None]]
"""A request, those who know its method: it is answered for all of them."""


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
    """Where the hybrid API or the image jobs stand before all others, their clients get what they know; else all answer together."""
    return claimants[0] if claimants[0] in {"hybrid", "images"} else "" if len(owners) > 1 else owners[0]


async def _by_plenty(_: Exchange, owners: Sequence[str], __: Sequence[str]) -> str:
    """The answer of the image jobs has all that the hybrid API's has, and that all that others' have."""
    return next((name for name in ("images", "hybrid") if name in owners), owners[0])


class Wish(Struct, frozen=True):
    """What the body of a ``/generate`` shows of whom it is meant for."""

    model: str = ""
    pictures: bool = False
    """Whether it has fields that only pictures have."""


_fields = msgspec.json.Decoder(dict[str, Raw])
_SHARED = frozenset({"prompt", "model"})
_OF_PICTURES = frozenset(GenerateRequest.__struct_fields__) - _SHARED


def wish_of(body: bytes) -> Wish:
    """What the body shows; of one that cannot be read, nothing."""
    try:
        check_extent(body)
        found = _fields.decode(body)
        model = msgspec.json.decode(found["model"], type=str | None) if "model" in found else None
    except (msgspec.MsgspecError, RecursionError, InvalidRequest):
        return Wish()
    return Wish(model or "", not _OF_PICTURES.isdisjoint(found))


async def _by_kind(exchange: Exchange, owners: Sequence[str], _: Sequence[str]) -> str:
    if not {"images", "conversation"} <= set(owners):
        return owners[0]
    wish = wish_of(await exchange.body())
    return "images" if await _paints(exchange.engine, wish) else "conversation"


async def _paints(engine: Engine, wish: Wish) -> bool:
    """Whether a picture is asked for: by what the named model does; else by the fields; else by the defaults, and what there is."""
    if wish.model:
        try:
            info = await engine.model(wish.model)
        except GatewayError:
            known = [row.id for row in await engine.models(CHATS | PAINT)]
            near = get_close_matches(wish.model[:200], known, n=1, cutoff=0.5)
            able = next((row.capabilities for row in await painters(engine) if row.id in near), frozenset())
            return wish.pictures or (Capability.PAINT in able and Capability.CHAT not in able)
        if lacks(PAINT, info) or lacks(CHATS, info):
            return not lacks(PAINT, info)
        return wish.pictures
    if wish.pictures or engine.leases.usual(CHATS):
        return wish.pictures
    rows = await engine.models(CHATS | PAINT)
    return bool(rows) and all(lacks(CHATS, row) for row in rows)


CROSSROADS: dict[str, Choose] = {
    "/generate": _by_kind,
    "/health": _by_plenty,
    "/models": _by_place,
    "/v1/models": _by_version,
    "/v1/models/{model:path}": _by_version,
    "/v1/chat/completions": _by_marks,
}


async def _models(exchange: Exchange, _: Sequence[str]) -> None:
    """OpenAI's list, and Brenda's names beside it; in a session, for nothing tells who has none yet from who wants none."""
    headers = exchange.scope["headers"]
    sent(headers)  # or it is refused
    rows = list(await exchange.engine.models(LISTED))
    names = msgspec.json.encode([row.id for row in rows if not lacks(CHATS, row)])
    await exchange.json(serve.models_reply(rows)[:-1] + b',"models":' + names + b"}", headers=told(headers))


async def _bare_models(exchange: Exchange, owners: Sequence[str]) -> None:
    """OpenAI's list, and beside it what is loaded and what paints, each with all that either API's clients look for."""
    rows: dict[str, dict[str, Any]] = {}
    if "hybrid" in owners:
        rows = {row["id"]: row for row in msgspec.json.decode(await loaded(exchange))}
    if "images" in owners:
        for model in await model_rows(exchange):
            row = {"key": model.id, "display_name": model.name, **rows.get(model.id, {}), **to_builtins(model)}
            rows[model.id] = row
    models = serve.models_reply(list(await exchange.engine.models(LISTED)))
    await exchange.json(models[:-1] + b',"models":' + msgspec.json.encode(list(rows.values())) + b"}")


MERGED: dict[str, dict[str, Together]] = {
    "/models": {"GET": _bare_models, "HEAD": _bare_models},
    "/v1/models": {"GET": _models, "HEAD": _models},
}
"""What all claimants of a path answer together."""
