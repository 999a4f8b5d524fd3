"""Puts a listener together: the routes of its dialects, one Litestar app, the guards around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from litestar import HttpMethod, Litestar, Request, Response, asgi, route
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp
from msgspec import Struct

from canonical.errors import GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.config import Config, ConfigError, Listener
from gateway.web import health, ollama, openai
from gateway.web.exchange import Exchange, Gateway, Handler, Voice
from gateway.web.guard import guarded

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler, HTTPScope, Receive, Scope, Send


class Dialect(Struct, frozen=True):
    """One dialect's rooms: the words for errors, the prefixes of its paths, its routes."""

    voice: Voice
    prefixes: tuple[str, ...]
    routes: dict[str, dict[str, Handler]]


DIALECTS = {
    "ollama": Dialect(ollama.VOICE, ollama.PREFIXES, ollama.ROUTES),
    "openai": Dialect(openai.VOICE, openai.PREFIXES, openai.ROUTES),
}


def listener_app(listener: Listener, config: Config, gateway: Gateway) -> ASGIApp:
    """The application of one listener.

    Raises:
        ConfigError: two of its dialects claim one path.
    """
    dialects = [DIALECTS[name] for name in listener.dialects]
    first = dialects[0].voice
    voice_of = voices(listener.dialects)

    handlers: dict[str, ControllerRouterHandler] = {}
    for dialect in dialects:
        for path, methods in dialect.routes.items():
            if path in handlers:
                raise ConfigError(f"{path} is claimed by two dialects of port {listener.port}")
            handlers[path] = _route(path, methods, gateway, dialect.voice)
    for path, methods in health.ROUTES.items():
        handlers[path] = _route(path, methods, gateway, first)

    def refused(request: Request[None, None, State], exception: Exception) -> Response[bytes]:
        path = request.scope["path"]
        voice = voice_of(path)
        error = _error(exception, path)
        status = voice.error_status(error)
        headers: dict[str, str] = {}
        if not isinstance(exception, HTTPException):
            gateway.access_log.crash(exception)
        elif exception.status_code == 405:
            headers["allow"] = (exception.headers or {}).get("allow", "")
        gateway.access_log.line(f"{voice.name} {request.method} {path[:100]} refused {status}")
        return Response(
            voice.error_body(error), status_code=status, media_type=voice.json_type.decode(), headers=headers
        )

    app = Litestar(
        list(handlers.values()),
        exception_handlers={Exception: refused},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )
    return guarded(cast("ASGIApp", app), listener, config.keys, gateway, voice_of)


def voices(names: Sequence[str]) -> Callable[[str], Voice]:
    """Path -> the dialect that owns it, else the first: who words an error that no route has."""
    dialects = [DIALECTS[name] for name in names]

    def voice_of(path: str) -> Voice:
        return next((dialect.voice for dialect in dialects if path.startswith(dialect.prefixes)), dialects[0].voice)

    return voice_of


def _route(path: str, methods: dict[str, Handler], gateway: Gateway, voice: Voice) -> ControllerRouterHandler:
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(cast("HTTPScope", scope), receive, send, gateway, voice).run(methods)

    if "{" not in path:
        return asgi(path, copy_scope=False)(handle)

    async def found() -> ASGIApp:
        return handle

    # Litestar 2.25 parses no path parameters for raw handlers.
    return route(path, http_method=[HttpMethod(method) for method in methods], status_code=200)(found)


def _error(exception: Exception, path: str) -> GatewayError:
    if not isinstance(exception, HTTPException):
        return GatewayError("internal error")
    if exception.status_code == 405:
        return MethodNotAllowed(f"this method is not allowed on {path}")
    if exception.status_code == 404:
        return NotFound(
            f"no route {path}: the base URL of OpenAI clients ends in /v1, that of Ollama clients has no path"
        )
    return InvalidRequest(str(exception.detail), status=exception.status_code)
