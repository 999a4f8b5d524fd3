"""What is kept of a response, read again: its items, its state, and the pages in which the client gets them.

Kept are two texts of JSON: the items that the client put in, and the response object. Where they are kept is others' business.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from adapters.responses import wire
from adapters.responses.items import item_ids
from canonical.errors import InvalidRequest

PAGE = 20
"""Items of a page, where the client does not say."""
PAGE_LIMIT = 100

_object = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode


def response_items(input: bytes, response: bytes) -> list[Raw]:
    """Everything said in one turn: what the client put in, and what came out."""
    output = _object.decode(response).get("output", Raw(b"[]"))
    return [*_items.decode(input), *_items.decode(output)]


def input_items(input: bytes) -> list[Raw]:
    """What the client put in."""
    return _items.decode(input)


def in_background(response: bytes) -> bool:
    """Whether a response object is of an answer that nobody waits for."""
    return bytes(_object.decode(response).get("background", Raw(b"false"))) == b"true"


def with_status(response: bytes, status: wire.Status, *, code: str = "", message: str = "") -> bytes:
    """A response object in another state, and why."""
    fields = _object.decode(response)
    fields["status"] = Raw(_encode(status))
    if message:
        fields["error"] = Raw(_encode(wire.Failure(code, message)))
    return _encode(fields)


def deleted_reply(id: str) -> bytes:
    """The answer of ``DELETE``."""
    return _encode({"id": id, "object": "response", "deleted": True})


def page_reply(items: Sequence[Raw], *, limit: str, order: str, after: str) -> bytes:
    """A page of ``items``, the newest first unless ``order`` says otherwise.

    Raises:
        InvalidRequest: a limit or order that cannot be, or an unknown item to go on after.
    """
    count = int(limit) if limit.isdecimal() and len(limit) < 4 else 0
    if limit and not 1 <= count <= PAGE_LIMIT:
        raise InvalidRequest(f"'limit' must be between 1 and {PAGE_LIMIT}", param="limit")
    if order not in {"", "asc", "desc"}:
        raise InvalidRequest("'order' must be asc or desc", param="order")
    ordered = list(items) if order == "asc" else list(reversed(items))
    ids = item_ids(ordered)
    if after and after not in ids:
        raise InvalidRequest(f"no item {after[:80]!r} to go on after", param="after")
    start = ids.index(after) + 1 if after else 0
    end = start + (count or PAGE)
    shown = ids[start:end]
    return _encode(
        wire.Page(
            data=ordered[start:end],
            first_id=shown[0] if shown else None,
            last_id=shown[-1] if shown else None,
            has_more=len(ids) > end,
        )
    )
