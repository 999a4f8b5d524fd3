"""Pictures: a request made complete, and a model that paints it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator

from msgspec import structs

from backends.base import Equips, Paints, Prepares
from canonical.errors import ModelNotFound, NoModelLoaded, NotImplementedHere, Unsupported
from canonical.models import Capability, ModelInfo
from canonical.painting import SEED, LoraInfo, Offer, Paint, Painted, Step, check_paint, nearest
from gateway.engine import Engine

PAINT = frozenset({Capability.PAINT})


async def prepared(engine: Engine, request: Paint) -> Paint:
    """The request with everything said that the pictures depend on, its seed and the model's own name included. Loads nothing.

    Raises:
        ModelNotFound, NotFound: there is no such model or adapter; the words tell the nearest names.
        InvalidRequest: something of it cannot be.
        NotImplementedHere: nothing here paints, or what that takes is not installed.
    """
    check_paint(request)
    try:
        route = await engine.leases.route(request.model, PAINT)
    except ModelNotFound as error:
        known = [row.id for row in await painters(engine)]
        raise ModelNotFound(error.message + nearest(request.model, known), param="model") from None
    except NoModelLoaded:
        raise NotImplementedHere("no model here paints: a backend of type diffusers does") from None
    backend = engine.backend(route)
    if not isinstance(backend, Prepares):
        raise Unsupported(f'"{request.model or route.id}" does not support paint', param="model")
    if engine.paints_here and isinstance(backend, Equips):
        backend.check_equipped()
    request = await backend.prepared(route.name, request)
    seed = secrets.randbelow(SEED + 1) if request.seed is None else request.seed
    return structs.replace(request, model=route.id, seed=seed)


async def painters(engine: Engine) -> list[ModelInfo]:
    """The models that are known to paint."""
    return [row for row in await engine.models(PAINT) if Capability.PAINT in row.capabilities]


async def offer(engine: Engine, name: str = "") -> Offer:
    """What a painting model lets one choose; no name: the default's. Raises as ``prepared``."""
    route = await engine.leases.route(name, PAINT)
    backend = engine.backend(route)
    if not isinstance(backend, Prepares):
        raise Unsupported(f'"{name or route.id}" does not support paint', param="model")
    return await backend.offer(route.name)


async def loras(engine: Engine) -> list[LoraInfo]:
    """All adapters that some model takes, in the order of their ids."""
    found: dict[str, LoraInfo] = {}
    for row in await painters(engine):
        for lora in (await offer(engine, row.id)).loras:
            found.setdefault(lora.id, lora)
    return [found[id] for id in sorted(found)]


async def painted(engine: Engine, request: Paint) -> AsyncGenerator[Step | Painted, None]:
    """The steps and pictures of a request that is complete. Closing the generator stops it within a step.

    Raises:
        GatewayError: whatever goes wrong.
    """
    async with engine.leases.held(request.model, Capability.PAINT) as model:
        if not isinstance(model, Paints):
            raise Unsupported(f'"{request.model}" does not support paint', param="model")
        async with contextlib.aclosing(model.paint(request)) as events:
            async for event in events:
                match event:
                    case Painted(made=made):
                        yield structs.replace(event, made=structs.replace(made, model=request.model))
                    case Step():
                        yield event
