"""Who may call: hosts (DNS rebinding), origins (other people's web pages), keys. And the answers that CORS needs.

Decided on the routed path and the connection, before any route runs; every route is denied unless it is open.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from canonical.errors import Forbidden, GatewayError, Unauthorized, shutting_down
from gateway.settings import Key, Listener
from gateway.web.caller import ANYBODY, CALLER, Caller, with_wish
from gateway.web.exchange import Gateway
from gateway.web.signed import places
from gateway.web.voice import Voice, new_id

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send


class VoiceOf(Protocol):
    """Who words an error that no route has."""

    def __call__(self, path: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Voice:
        """The dialect of a request to ``path`` with these headers."""


OPEN = frozenset({"/health/live", "/health/ready"})
"""Paths that need no key. Those of ``signed.places`` need none with a signature over all that they say."""

_LOCAL_PAGE = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:\d+)?|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
NAME_LIMIT = 512
"""Bytes of a Host or Origin that can be allowed at all; what is remembered of strangers stays small."""
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_READABLE = frozenset(
    (b"cache-control", b"content-language", b"content-length", b"content-type", b"expires", b"last-modified", b"pragma")
) | {b"vary"}
"""Headers that a page may read wherever it may read the answer; and one that says nothing to a page."""
_WISHES = frozenset((b"dragoman-strict", b"dragoman-report"))


def guarded(app: ASGIApp, listener: Listener, keys: Iterable[Key], gateway: Gateway, voice_of: VoiceOf) -> ASGIApp:
    """``app`` behind the guards of one listener."""
    secrets = {
        key.key.encode(): Caller(_owner(key.key), strict=key.strict, manage=key.manage, priority=key.priority)
        for key in keys
    }
    origin_known = lru_cache(256)(_origins(listener.cors.origins))
    host_known = lru_cache(256)(_hosts(listener.hosts))
    everyone = "*" in listener.cors.origins
    loopback = listener.loopback
    signed = places(listener.mounts)

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        # The server speaks neither WebSocket nor lifespan.
        await http(cast("HTTPScope", scope), receive, send)

    async def http(scope: HTTPScope, receive: Receive, send: Send) -> None:
        host = origin = site = b""
        given: list[bytes] = []
        wishes: list[tuple[bytes, bytes]] = []
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"authorization":
                if value[:7].lower() == b"bearer ":
                    given.append(value[7:].strip())
            elif name in {b"x-api-key", b"api-key"}:
                given.append(value)
            elif name in _WISHES:
                wishes.append((name, value))
        error: GatewayError | None = None
        if loopback and (len(host) > NAME_LIMIT or not host_known(host)):
            error = Forbidden("this host name is not served here; list it under `hosts` of the listener")
            origin = b""
        elif (
            origin
            and origin != scope["scheme"].encode() + b"://" + host
            and (len(origin) > NAME_LIMIT or not origin_known(origin))
        ):
            error = Forbidden("this origin may not call; list it under `cors.origins` of the listener")
            origin = b""
        elif site == b"cross-site" and not origin and scope["method"] not in {"GET", "HEAD"}:
            error = Forbidden("a web page of another site may not call")
        if origin:
            send = _with_cors(send, b"*" if everyone and not listener.cors.credentials else origin, listener)
            if error is None and scope["method"] == "OPTIONS":
                await _preflight(scope, send)
                return
        caller = _keyed(secrets, given) if secrets and scope["path"] not in OPEN else ANYBODY
        if error is None and caller is None:
            error = await _without_key(scope, gateway, signed)
        if error is None and gateway.draining and scope["path"] not in OPEN:
            error = shutting_down()
        if error is None:
            _introduce(scope, caller or ANYBODY, wishes)
            await app(scope, receive, send)
        else:
            await refuse(scope, send, error, voice_of(scope["path"], scope["headers"]), gateway)

    return call


async def refuse(scope: HTTPScope, send: Send, error: GatewayError, voice: Voice, gateway: Gateway) -> None:
    """Word an error for a request that reached no route."""
    id = new_id()
    body = voice.refusal(error, id)
    status = voice.error_status(error)
    headers = [(b"content-type", voice.json_type), (b"content-length", b"%d" % len(body)), voice.named(id)]
    headers += voice.besides(scope["headers"])
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    gateway.access_log.line(f"{voice.name} {scope['method']} {scope['path'][:100]} refused {status}")
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _without_key(scope: HTTPScope, gateway: Gateway, signed: tuple[str, ...]) -> GatewayError | None:
    """Why who has no key may not come in. None: by a link that the gateway has signed, to read what it leads to alone."""
    if gateway.links is not None and scope["path"].startswith(signed) and scope["method"] in {"GET", "HEAD"}:
        try:
            if await gateway.links.opened(scope["path"].rpartition("/")[2], scope["query_string"]) is not None:
                return None
        except GatewayError as error:
            return error
    return Unauthorized("a valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY")


def _introduce(scope: HTTPScope, caller: Caller, wishes: list[tuple[bytes, bytes]]) -> None:
    """Leave word of the caller for the exchange, unless it is nobody in particular."""
    for name, value in wishes:
        caller = with_wish(caller, name, value)
    if caller is not ANYBODY:
        scope["extensions"] = {**(scope.get("extensions") or {}), CALLER: caller}  # type: ignore[dict-item]


def _keyed(secrets: dict[bytes, Caller], given: list[bytes]) -> Caller | None:
    found = None
    for secret, caller in secrets.items():  # all are compared: the time tells nothing
        for key in given:
            if hmac.compare_digest(secret, key):
                found = caller
    return found


def _owner(key: str) -> str:
    """What stands for a key where the key itself may not be."""
    return hashlib.sha256(b"dragoman owner " + key.encode()).hexdigest()[:32]


def _hosts(listed: tuple[str, ...]) -> Callable[[bytes], bool]:
    names = {name.casefold() for name in listed}

    def allowed(host: bytes) -> bool:
        name = re.sub(r":\d*$", "", host.decode("latin-1")).casefold().strip("[]")
        if not host or name == "localhost" or name.endswith(".localhost") or name in names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    return allowed


def _origins(listed: tuple[str, ...]) -> Callable[[bytes], bool]:
    patterns = [re.compile(".*".join(map(re.escape, origin.split("*")))) for origin in listed]

    def allowed(origin: bytes) -> bool:
        text = origin.decode("latin-1")
        return _LOCAL_PAGE.fullmatch(text) is not None or any(pattern.fullmatch(text) for pattern in patterns)

    return allowed


@lru_cache(256)
def _exposed(names: tuple[bytes, ...]) -> bytes:
    """Every header of an answer, each by its name: a ``*`` is no wildcard beside credentials."""
    told = (name for name in dict.fromkeys(names) if name not in _READABLE and not name.startswith(b"access-control-"))
    return b", ".join(told)


def _with_cors(send: Send, origin: bytes, listener: Listener) -> Send:
    extra = [(b"access-control-allow-origin", origin)]
    if origin != b"*":
        extra.append((b"vary", b"Origin"))
    if listener.cors.credentials:
        extra.append((b"access-control-allow-credentials", b"true"))

    async def with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            exposed = _exposed(tuple(name for name, _ in message["headers"]))
            named = [(b"access-control-expose-headers", exposed)] if exposed else []
            message["headers"] = [*message["headers"], *extra, *named]
        await send(message)

    return with_cors


async def _preflight(scope: HTTPScope, send: Send) -> None:
    asked = next((value for name, value in scope["headers"] if name == b"access-control-request-headers"), b"")
    headers: list[tuple[bytes, bytes]] = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"43200"),
        (b"vary", b"Access-Control-Request-Headers"),
    ]
    if asked:
        headers.append((b"access-control-allow-headers", asked))
    start: Any = {"type": "http.response.start", "status": 204, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
