"""What a registry asks for when it says 401, and who may be told.

    Bearer realm="https://registry.example.org/token",service="registry",scope="repository:acme/bot:pull"

A token is asked for at the registry's own origin alone: a realm elsewhere would be told who we are, and be asked by us
for whatever stands in its address.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from backends.fetching.hosts import Source
from backends.fetching.patience import judge
from backends.fetching.web import Web
from backends.links import Link, read_link
from canonical.errors import BackendError

LIMIT = 64 * 1024

_PARAMETER = re.compile(r'([a-z]+)="([^"\\]{0,2048})"')


class _Token(Struct):
    token: str = ""
    access_token: str = ""


def basic(source: Source | None) -> str:
    """The header of a user and a password; empty without."""
    if source is None or not source.user:
        return ""
    return f"Basic {b64encode(f'{source.user}:{source.password}'.encode()).decode()}"


def standing(source: Source | None) -> str:
    """What goes with the first request already."""
    return f"Bearer {source.token}" if source is not None and source.token else ""


async def secret_for(challenge: str, origin: Link, source: Source | None, web: Web) -> str:
    """The value of ``Authorization`` that meets a challenge. Raises BackendError."""
    scheme, _, rest = challenge.partition(" ")
    if scheme.lower() == "basic" and source is not None and source.user:
        return basic(source)
    if scheme.lower() != "bearer":
        raise BackendError("unauthorized: access denied")
    asked = dict(_PARAMETER.findall(rest))
    try:
        realm = read_link(asked.get("realm", ""))
    except ValueError as error:
        raise BackendError(f"the registry asks for a token at no proper address: {error}") from None
    if realm.origin != origin.origin:
        raise BackendError(
            f"the registry wants a token of {realm.host[:100]!r}: tokens are asked for at its own host only"
        )
    query = [("service", asked.get("service", "")), *(("scope", scope) for scope in asked.get("scope", "").split())]
    target = f"{realm.target}{'&' if '?' in realm.target else '?'}{urlencode(query)}"
    link = Link(realm.tls, realm.host, realm.port, target)
    response, there = await web.ask("GET", link, secret=basic(source), follow=False)
    body = await web.body(response, LIMIT)
    if judge(response, there.host, "a token") is not None:
        raise BackendError(f"unauthorized: access denied (status {response.status})")
    try:
        found = msgspec.json.decode(body, type=_Token)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackendError("the registry's token cannot be read") from None
    token = found.token or found.access_token
    if not re.fullmatch(r"[!-~]+", token):
        raise BackendError("the registry's token is none")
    return f"Bearer {token}"
