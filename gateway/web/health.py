"""Liveness and readiness, for whatever supervises the process. Open to all, and told nothing else."""

from __future__ import annotations

from gateway.web.exchange import Exchange, Handler


async def _live(exchange: Exchange) -> None:
    await exchange.reply(200, b"application/json", b'{"status":"live"}')


async def _ready(exchange: Exchange) -> None:
    if exchange.gateway.draining:
        await exchange.reply(503, b"application/json", b'{"status":"draining"}')
    else:
        await exchange.reply(200, b"application/json", b'{"status":"ready"}')


ROUTES: dict[str, dict[str, Handler]] = {
    "/health/live": {"GET": _live, "HEAD": _live},
    "/health/ready": {"GET": _ready, "HEAD": _ready},
}
