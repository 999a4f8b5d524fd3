"""What every loaded GGUF model has, and what the kinds that take whole texts share: how a text that is too long is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from backends.honours import TABLE
from backends.llama_cpp.body import EXTRAS, Limits
from backends.llama_cpp.engine import read_error
from backends.llama_cpp.inprocess import Runner
from canonical.errors import BackendError, GatewayError, InvalidRequest
from canonical.models import LoadedModel, ModelInfo
from canonical.own import NOTHING, Own
from canonical.report import Honours

A = TypeVar("A")

SHRINK = 0.9
"""By what a text is cut further than its count asks for: characters are not tokens."""
TRIES = 8


class Loaded:
    """What every loaded model has. ``memory`` is an estimate in bytes."""

    honours = Honours(
        TABLE["llama_cpp"], extras={"openai": EXTRAS, "ollama": frozenset(f"options.{name}" for name in EXTRAS)}
    )

    own: Own = NOTHING
    """What it brings along to each request."""

    def __init__(self, info: ModelInfo, runner: Runner, *, slots: int, limits: Limits, memory: int) -> None:
        self.info = info
        self.slots = slots
        self.runner = runner
        self._limits = limits
        self._memory = memory

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._memory, context_length=self._limits.context)

    async def close(self) -> None:
        """Free its memory. No lease is open."""
        await self.runner.close()


def counted(error: GatewayError) -> int:
    """The tokens that a refusal of the engine's names; 0 if it names none."""
    for word in error.message.replace("(", " ").split():
        if word.isdigit():
            return int(word)
    return 0


async def cut_to_fit(ask: Callable[[int], Awaitable[A]], length: int, context: int, *, least: int) -> A:
    """What ``ask`` answers for as much of a text of ``length`` as fits, and no less than ``least``.

    Only the engine can count, and it counts in its refusal. Raises InvalidRequest where nothing fits.
    """
    for _ in range(TRIES - 1):
        try:
            return await ask(length)
        except InvalidRequest as refused:
            if refused.code != "context_length_exceeded" or length <= least:
                raise
            tokens = counted(refused)
            share = context / tokens * SHRINK if tokens > context else SHRINK
            length = max(least, int(length * share))
    return await ask(length)


class _Told(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Told = msgspec.field(default_factory=_Told)


def input_error(body: bytes, context: int, *, param: str) -> GatewayError:
    """The error to raise for an engine's refusal of whole texts; ``param`` names the field with them."""
    try:
        message = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        return BackendError("the engine answered an error that cannot be read")
    if "too large to process" in message or "context size" in message:
        return too_long(message.partition(". increase")[0], context, param=param)
    return read_error(body, context=context)


def too_long(words: str, context: int, *, param: str) -> InvalidRequest:
    """What a text that does not fit gets, in words that clients look for."""
    return InvalidRequest(
        f"{words}: the input length exceeds the context length; this model's maximum context length is "
        f"{context} tokens",
        param=param,
        code="context_length_exceeded",
    )
