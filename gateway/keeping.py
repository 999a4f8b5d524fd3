"""What the configuration says of keeping models loaded, in the pool's words."""

from __future__ import annotations

from backends.base import Backend, Model, Need, Tell, Weighs
from canonical.durations import seconds
from canonical.requests import LoadOptions
from gateway.memory import Machine
from gateway.pool import Source
from gateway.residents import Rules, Terms
from gateway.router import Route
from gateway.settings import Config


def rules_of(config: Config, machine: Machine) -> Rules:
    """The rules for all models."""
    memory = config.memory
    return Rules(
        waiting=config.limits.waiting,
        waiting_time=config.limits.waiting_time,
        switch_after=memory.switch_after,
        abandoned=memory.abandoned,
        budget=machine.budget(memory.ram, memory.vram, memory.models),
    )


def source_of(route: Route, backend: Backend, keep_alive: float) -> Source:
    """What the pool needs to load one model and to keep it. ``keep_alive`` is for those without their own."""
    entry = route.entry
    local = isinstance(backend, Weighs)
    terms = Terms(keep_alive=keep_alive, local=local)
    if entry is not None:
        terms = Terms(
            keep_alive=keep_alive if entry.keep_alive is None else seconds(entry.keep_alive),
            pinned=entry.pinned,
            exclusive=entry.exclusive,
            load=entry.own.load,
            options=entry.load_options,
            local=local,
        )

    async def load(options: LoadOptions, tell: Tell) -> Model:
        return await backend.open(route.name, options, tell)

    async def need(options: LoadOptions) -> Need:
        assert isinstance(backend, Weighs)
        return await backend.need(route.name, options)

    return Source(key=(route.backend, route.name), open=load, need=need, terms=terms)
