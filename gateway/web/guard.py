"""Who may call: hosts (DNS rebinding), origins (other people's web pages), keys. And the answers that CORS needs.

Decided on the routed path and the connection, before any route runs; every route is denied unless it is open.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from canonical.errors import Busy, Forbidden, GatewayError, Unauthorized
from gateway.config import Listener
from gateway.web.exchange import Gateway, Voice

if TYPE_CHECKING:
    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

OPEN = frozenset({"/health/live", "/health/ready"})
"""Paths that need no key."""

_LOCAL_PAGE = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:\d+)?|(app|file|tauri|vscode-webview|vscode-file)://.*"
)
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_EXPOSED = b"x-request-id, retry-after"


def guarded(
    app: ASGIApp, listener: Listener, keys: Iterable[str], gateway: Gateway, voice_of: Callable[[str], Voice]
) -> ASGIApp:
    """``app`` behind the guards of one listener."""
    secrets = tuple(key.encode() for key in keys)
    origin_allowed = lru_cache(1024)(_origins(listener.cors.origins))
    host_allowed = lru_cache(1024)(_hosts(listener.hosts)) if listener.loopback else None
    everyone = "*" in listener.cors.origins

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        # The server speaks neither WebSocket nor lifespan.
        await http(cast("HTTPScope", scope), receive, send)

    async def http(scope: HTTPScope, receive: Receive, send: Send) -> None:
        host = origin = site = key = bearer = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"authorization":
                bearer = value
            elif name in {b"x-api-key", b"api-key"}:
                key = value
        error: GatewayError | None = None
        if host_allowed is not None and not host_allowed(host):
            error = Forbidden("this host name is not served here; list it under `hosts` of the listener")
        elif origin and not origin_allowed(origin, scope["scheme"].encode() + b"://" + host):
            error = Forbidden("this origin may not call; list it under `cors.origins` of the listener")
            origin = b""
        elif site == b"cross-site" and not origin and scope["method"] not in {"GET", "HEAD"}:
            error = Forbidden("a web page of another site may not call")
        if origin:
            send = _with_cors(send, b"*" if everyone and not listener.cors.credentials else origin, listener)
            if error is None and scope["method"] == "OPTIONS":
                await _preflight(scope, send)
                return
        if error is None and secrets and scope["path"] not in OPEN and not _keyed(secrets, bearer, key):
            error = Unauthorized("a valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY")
        if error is None and gateway.draining and scope["path"] not in OPEN:
            error = Busy("the gateway is shutting down", retry_after=5)
        if error is None:
            await app(scope, receive, send)
        else:
            await refuse(scope, send, error, voice_of(scope["path"]))

    return call


async def refuse(scope: HTTPScope, send: Send, error: GatewayError, voice: Voice) -> None:
    """Word an error for a request that reached no route."""
    body = b"" if scope["method"] == "HEAD" else voice.error_body(error)
    headers = [(b"content-type", voice.json_type), (b"content-length", b"%d" % len(body))]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    await send({"type": "http.response.start", "status": voice.error_status(error), "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _keyed(secrets: tuple[bytes, ...], bearer: bytes, key: bytes) -> bool:
    given = bearer[7:].strip() if bearer[:7].lower() == b"bearer " else key
    found = False
    for secret in secrets:  # all are compared: the time tells nothing
        found |= hmac.compare_digest(secret, given)
    return found


def _hosts(listed: tuple[str, ...]) -> Callable[[bytes], bool]:
    names = {name.casefold() for name in listed}

    def allowed(host: bytes) -> bool:
        name = re.sub(r":\d+$", "", host.decode("latin-1")).casefold().strip("[]")
        if not name or name == "localhost" or name.endswith(".localhost") or name in names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    return allowed


def _origins(listed: tuple[str, ...]) -> Callable[[bytes, bytes], bool]:
    patterns = [re.compile(".*".join(map(re.escape, origin.split("*")))) for origin in listed]

    def allowed(origin: bytes, own: bytes) -> bool:
        if origin == own:
            return True
        text = origin.decode("latin-1")
        return _LOCAL_PAGE.fullmatch(text) is not None or any(pattern.fullmatch(text) for pattern in patterns)

    return allowed


def _with_cors(send: Send, origin: bytes, listener: Listener) -> Send:
    extra = [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)]
    if origin != b"*":
        extra.append((b"vary", b"Origin"))
    if listener.cors.credentials:
        extra.append((b"access-control-allow-credentials", b"true"))

    async def with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return with_cors


async def _preflight(scope: HTTPScope, send: Send) -> None:
    asked = next((value for name, value in scope["headers"] if name == b"access-control-request-headers"), b"")
    headers: list[tuple[bytes, bytes]] = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", b"43200"),
    ]
    if asked:
        headers.append((b"access-control-allow-headers", asked))
    start: Any = {"type": "http.response.start", "status": 204, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
