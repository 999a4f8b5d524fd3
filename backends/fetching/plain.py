"""A GGUF file by its address and digest (``https://host/x.gguf#sha256=<hex>``).

Without its digest a file would be whatever its server sends that day, so the address must have one.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from msgspec import Struct

from adapters.ollama.names import Name, valid
from backends.base import Tell
from backends.fetching.blobs import Blobs, Part
from backends.fetching.download import Wanted
from backends.fetching.making import Weights, make
from backends.links import Link, read_link
from canonical.errors import InvalidRequest

_FILE = re.compile(r"https?://[^#]*\.gguf(?:\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_DIGEST = re.compile(r"sha256[=:-]([0-9a-f]{64})", re.IGNORECASE)


class Address(Struct, frozen=True):
    """A file behind a link, and the name that its model gets."""

    link: Link
    digest: str
    name: Name


def is_address(text: str) -> bool:
    """Whether ``text`` is the address of a file, and no name of a registry's model with a scheme before it."""
    return _FILE.fullmatch(text) is not None


def read_address(text: str) -> Address:
    """Raises InvalidRequest: no link, or no digest."""
    address, _, fragment = text.partition("#")
    try:
        link = read_link(address)
    except ValueError as error:
        raise InvalidRequest(f"the address cannot be followed: {error}", param="model") from None
    found = _DIGEST.fullmatch(fragment)
    if found is None:
        raise InvalidRequest(
            "the address of a file must end with its digest, #sha256=<64 hex digits>: nothing else tells whether it is "
            "the one that was meant",
            param="model",
        )
    *folders, file = [piece for piece in unquote(link.target.partition("?")[0]).split("/") if piece]
    host = link.host if link.port == (443 if link.tls else 80) else f"{link.host}:{link.port}"
    name = Name(host, _word(folders[-1] if folders else "files", dots=False), _word(file[: -len(".gguf")]), "latest")
    if not valid(name):
        raise InvalidRequest("the file's name cannot become a model's", param="model")
    return Address(link, f"sha256:{found[1].lower()}", name)


async def pull(address: Address, blobs: Blobs, tell: Tell) -> None:
    """Fetch the file and make a model of it. Raises BackendError, StorageFailed, Unsupported."""
    async with blobs.claimed([Part(address.digest, 0)]):
        await blobs.fetch(Wanted(link=address.link, digest=address.digest), tell)
        await make(address.name, [Weights(address.digest, f"{address.name.model}.gguf")], blobs, tell)


def _word(text: str, *, dots: bool = True) -> str:
    """A part of a name, out of whatever stood there."""
    found = re.sub(r"[^A-Za-z0-9_.-]" if dots else r"[^A-Za-z0-9_-]", "-", text)[:80]
    return found.lstrip("-.") or "model"
