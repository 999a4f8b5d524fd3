"""Puts a listener together: the routes of its dialects, one Litestar app, the guards around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from litestar import HttpMethod, Litestar, Request, Response, asgi, route
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp
from msgspec import Struct

from canonical.errors import GatewayError, InvalidRequest, MethodNotAllowed, NoRoute
from gateway.config import ConfigError
from gateway.settings import Config, Listener, Mounted
from gateway.web import (
    anthropic,
    automatic1111,
    brenda,
    conversation,
    health,
    hybrid,
    images,
    libretranslate,
    lmstudio,
    ollama,
    openai,
    schema,
)
from gateway.web.crossroads import CROSSROADS, MERGED, Choose, Headers, Together, by_version
from gateway.web.exchange import Exchange, Gateway, Handler
from gateway.web.guard import VoiceOf, guarded
from gateway.web.key_in_basic import with_key
from gateway.web.key_in_body import with_header
from gateway.web.voice import Voice, new_id

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler, HTTPScope, Receive, Scope, Send


class Dialect(Struct, frozen=True):
    """One dialect's rooms: the words for errors, the prefixes of its paths, its routes."""

    voice: Voice
    prefixes: tuple[str, ...]
    routes: dict[str, dict[str, Handler]]


DIALECTS = {
    "anthropic": Dialect(anthropic.VOICE, anthropic.PREFIXES, anthropic.ROUTES),
    "automatic1111": Dialect(automatic1111.VOICE, automatic1111.PREFIXES, automatic1111.ROUTES),
    "brenda": Dialect(brenda.VOICE, brenda.PREFIXES, brenda.ROUTES),
    "conversation": Dialect(conversation.VOICE, conversation.PREFIXES, conversation.ROUTES),
    "hybrid": Dialect(hybrid.VOICE, hybrid.PREFIXES, hybrid.ROUTES),
    "images": Dialect(images.VOICE, images.PREFIXES, images.ROUTES),
    "libretranslate": Dialect(libretranslate.VOICE, libretranslate.PREFIXES, libretranslate.ROUTES),
    "lmstudio": Dialect(lmstudio.VOICE, lmstudio.PREFIXES, lmstudio.ROUTES),
    "ollama": Dialect(ollama.VOICE, ollama.PREFIXES, ollama.ROUTES),
    "openai": Dialect(openai.VOICE, openai.PREFIXES, openai.ROUTES),
}


class Room(Struct, frozen=True):
    """What one dialect does on one path."""

    voice: Voice
    methods: dict[str, Handler]


class _Routes(Litestar):
    """Without Litestar's plugins for what happens to be installed: no route has such models, and pydantic takes 6 MB and 60 ms."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]


def listener_app(listener: Listener, config: Config, gateway: Gateway) -> ASGIApp:
    """The application of one listener.

    Raises:
        ConfigError: two of its dialects claim one path.
    """
    voice_of = voices(listener.mounts)
    claims: dict[tuple[str, str], list[str]] = {}
    for mounted in listener.mounts:
        for path in DIALECTS[mounted.name].routes:
            claims.setdefault((mounted.prefix, path), []).append(mounted.name)
    handlers: dict[str, ControllerRouterHandler] = {}
    for (prefix, path), names in claims.items():
        rooms = {name: Room(DIALECTS[name].voice, DIALECTS[name].routes[path]) for name in names}
        owners = {method: [name for name in names if method in rooms[name].methods] for method in _methods(rooms)}
        if path not in CROSSROADS and any(len(claimants) > 1 for claimants in owners.values()):
            raise ConfigError(f"{prefix}{path} is claimed by {' and '.join(names)} of port {listener.port}")
        handlers[prefix + path] = _route(prefix, path, rooms, gateway)
    for path, methods in {**schema.routes(listener.mounts, keys=bool(config.secrets)), **health.ROUTES}.items():
        if path not in handlers:
            handlers[path] = _route("", path, {"": Room(DIALECTS[listener.mounts[0].name].voice, methods)}, gateway)

    def refused(request: Request[None, None, State], exception: Exception) -> Response[bytes]:
        path = request.scope["path"]
        voice = voice_of(path, request.scope["headers"])
        error = _error(exception, path)
        if isinstance(error, NoRoute) and voice.stray is not None:
            error = type(error)(voice.stray(request.method, path))
        status = voice.error_status(error)
        id = new_id()
        name, told = voice.named(id)
        headers = {name.decode(): told.decode()}
        headers.update((name.decode(), value.decode()) for name, value in voice.besides(request.scope["headers"]))
        if not isinstance(exception, HTTPException):
            gateway.access_log.crash(exception)
        elif exception.status_code == 405:
            headers["allow"] = (exception.headers or {}).get("allow", "")
        gateway.access_log.line(f"{voice.name} {request.method} {path[:100]} refused {status}")
        return Response(
            voice.refusal(error, id), status_code=status, media_type=voice.json_type.decode(), headers=headers
        )

    app = _Routes(
        list(handlers.values()),
        exception_handlers={Exception: refused},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )
    guard = guarded(cast("ASGIApp", app), listener, config.secrets, gateway, voice_of)
    return with_key(with_header(guard, listener.mounts), listener.mounts) if config.secrets else guard


def voices(mounts: Sequence[Mounted]) -> VoiceOf:
    """The dialect that owns the path's longest prefix, else the first: who words an error that no route has."""
    names = [mounted.name for mounted in mounts]
    prefixes = sorted(
        (
            (mounted.prefix + prefix, mounted.name)
            for mounted in mounts
            for prefix in (*DIALECTS[mounted.name].prefixes, *(("/",) if mounted.prefix else ()))
        ),
        key=lambda pair: -len(pair[0]),
    )

    def voice_of(path: str, headers: Headers = ()) -> Voice:
        owner = next((name for prefix, name in prefixes if path.startswith(prefix)), names[0])
        if owner == "openai" and "anthropic" in names and by_version(headers, ["anthropic"]) == "anthropic":
            owner = "anthropic"
        return DIALECTS[owner].voice

    return voice_of


def _route(prefix: str, path: str, rooms: dict[str, Room], gateway: Gateway) -> ControllerRouterHandler:
    only = next(iter(rooms.values()))
    methods = only.methods if len(rooms) == 1 else _crossroad(rooms, CROSSROADS.get(path), MERGED.get(path, {}))

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(cast("HTTPScope", scope), receive, send, gateway, only.voice).run(methods)

    if "{" not in path:
        return asgi(prefix + path, copy_scope=False)(handle)

    async def found() -> ASGIApp:
        return handle

    # Litestar 2.25 parses no path parameters for raw handlers.
    return route(prefix + path, http_method=[HttpMethod(method) for method in methods], status_code=200)(found)


def _methods(rooms: dict[str, Room]) -> list[str]:
    return sorted({method for room in rooms.values() for method in room.methods})


def _crossroad(rooms: dict[str, Room], choose: Choose | None, merged: dict[str, Together]) -> dict[str, Handler]:
    """A path's methods, each answered by its one owner, or by whom ``choose`` names."""

    def one(method: str) -> Handler:
        owners = [name for name, room in rooms.items() if method in room.methods]

        async def handle(exchange: Exchange) -> None:
            name = owners[0] if choose is None else await choose(exchange, owners, list(rooms))
            if name:
                exchange.voice = rooms[name].voice
            methods = rooms[name].methods if name else merged
            if method not in methods:
                error = MethodNotAllowed(f"method {method} is not allowed here")
                await exchange.fail(error, [(b"allow", ", ".join(methods).encode())])
            elif name:
                await rooms[name].methods[method](exchange)
            else:
                await merged[method](exchange, owners)

        return handle

    return {method: one(method) for method in _methods(rooms)}


def _error(exception: Exception, path: str) -> GatewayError:
    if not isinstance(exception, HTTPException):
        return GatewayError("internal error")
    if exception.status_code == 405:
        return MethodNotAllowed(f"this method is not allowed on {path}")
    if exception.status_code == 404:
        return NoRoute(
            f"no route {path[:100]}: the base URL of OpenAI clients ends in /v1, those of Ollama's and Anthropic's clients "
            "have no path; /openapi.json tells what there is"
        )
    return InvalidRequest(str(exception.detail), status=exception.status_code)
