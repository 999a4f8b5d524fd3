"""A worker process of llama.cpp: one engine with one model. ``python -m backends.llama_cpp.worker``."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from backends.llama_cpp.engine import Engine, EngineName, Start
from backends.workers import desk
from backends.workers.desk import Emit, Far, Serve

ERRORS = 1
"""How much xllamacpp prints while it loads: what went wrong, and why. Nobody reads what it prints afterwards."""


class Orders(Struct, frozen=True):
    """Which engine, with which model."""

    engine: EngineName
    start: Start


_orders = msgspec.msgpack.Decoder(Orders)


def _engine(orders: Orders, far: Far) -> Engine:
    if orders.engine == "xllamacpp":
        from backends.llama_cpp.xllamacpp import XLlamaCpp  # only one engine's library is loaded

        return XLlamaCpp(orders.start, verbosity=ERRORS)
    from backends.llama_cpp.llama_cpp_python import LlamaCppPython  # as above

    return LlamaCppPython(orders.start, far)


def load(start: bytes, far: Far) -> Serve:
    """See ``desk.Load``. Every kind of ask that is not one of these is a stream."""
    engine = _engine(_orders.decode(start), far)

    def serve(kind: str, body: bytes, emit: Emit) -> None:
        if kind == "embed":
            emit(engine.embed(body))
        elif kind == "rerank":
            emit(engine.rerank(body))
        else:
            engine.stream(kind, body, emit)  # type: ignore[arg-type]  # the other end of the pipe sends a Kind

    return serve


if __name__ == "__main__":
    desk.main(load)
