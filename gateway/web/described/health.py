"""Liveness and readiness, told."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.web.described.operation import Operation, Operations, Reply, json, ok, read


class Live(Struct):
    """The process answers."""

    status: Literal["live"]


class Ready(Struct):
    """Whether new work is taken."""

    status: Literal["ready", "draining"]


DESCRIBED: Operations = {
    "/health/live": read(Operation("Whether the process answers", replies=ok(json(Live)), open=True)),
    "/health/ready": read(
        Operation(
            "Whether new work is taken",
            replies={**ok(json(Ready), words="It is."), 503: Reply("The gateway is ending.", (json(Ready),))},
            open=True,
        )
    ),
}
