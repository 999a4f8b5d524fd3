"""Which dialects a server speaks, and its models: asked for lists and with an empty conversation, so nothing is generated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from backends import anthropic
from backends.abilities import DIALECTS, Dialect, filled
from backends.anthropic import AnthropicBackend, AnthropicSettings
from backends.ollama import OllamaBackend, OllamaSettings
from backends.openai import OpenAIBackend, OpenAISettings
from backends.upstream import RemoteSettings, Timeouts, Upstream
from canonical.errors import BackendError, BackendUnavailable, GatewayError
from canonical.models import ModelInfo

Remote = OpenAIBackend | OllamaBackend | AnthropicBackend
NAME = "probe"
"""What messages would call the backend."""
STUDIO_TIME = 3.0
"""Seconds for a list that only LM Studio has."""
CREDENTIALS = "backend_credentials"
"""The code of the error that means: a key is missing, or wrong."""


class Spoken(Struct, frozen=True):
    """One dialect that a server answers."""

    dialect: Dialect
    backend: Remote
    models: tuple[ModelInfo, ...] = ()


class Heard(Struct, frozen=True):
    """What became of all dialects."""

    spoken: tuple[Spoken, ...]
    failures: dict[Dialect, GatewayError]

    @property
    def reached(self) -> bool:
        """Whether anything answered at all."""
        return bool(self.spoken) or not all(isinstance(each, BackendUnavailable) for each in self.failures.values())


class _Answer(GatewayError):
    """An answer of a status other than success, as it came."""

    def __init__(self, status: int, body: bytes, _: str | None) -> None:
        super().__init__(f"the backend answered with status {status}", status=status)
        self.body = body


def backend(dialect: Dialect, url: str, key: str, *, seconds: float, **more: Any) -> Remote:
    """A backend that asks ``url`` as the gateway would. Raises ValueError for a URL that is none."""
    timeouts = Timeouts(connect=min(seconds, 10.0), first_byte=seconds, idle=seconds, total=seconds)
    root = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
    match dialect:
        case "openai":
            base = root if url.rstrip("/").endswith("/api") else url
            return OpenAIBackend(NAME, OpenAISettings(url=base, api_key=key, timeouts=timeouts, **more))
        case "ollama":
            return OllamaBackend(NAME, OllamaSettings(url=root, api_key=key, timeouts=timeouts))
        case "anthropic":
            return AnthropicBackend(NAME, AnthropicSettings(url=root, api_key=key, timeouts=timeouts, **more))


async def listen(
    url: str, key: str, *, wanted: Sequence[Dialect] = DIALECTS, seconds: float, answering: float
) -> Heard:
    """Try each of the ``wanted`` dialects, for at most ``seconds`` a question.

    Their backends, which will wait ``answering`` seconds for an answer, are the caller's to close.
    """
    tasks = {dialect: asyncio.ensure_future(_try(dialect, url, key, seconds, answering)) for dialect in wanted}
    try:
        await asyncio.wait(tasks.values())
    except asyncio.CancelledError:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        raise
    spoken: list[Spoken] = []
    failures: dict[Dialect, GatewayError] = {}
    for dialect, task in tasks.items():
        error = task.exception()
        if error is None:
            spoken.append(task.result())
        elif isinstance(error, GatewayError):
            failures[dialect] = error
        else:
            raise error
    return Heard(_with_names(spoken), failures)


async def _try(dialect: Dialect, url: str, key: str, seconds: float, answering: float) -> Spoken:
    source = backend(dialect, url, key, seconds=answering)
    try:
        async with asyncio.timeout(seconds):
            if dialect == "anthropic":
                await _speaks_messages(url, key, seconds)
                try:
                    models = await source.models()
                except GatewayError:
                    models = []  # many serve messages and list their models in another dialect only
            else:
                models = await source.models()
    except TimeoutError:
        await source.close()
        raise BackendError(f"no answer within {seconds:g} s") from None
    except BaseException:
        await source.close()
        raise
    if dialect == "openai":
        try:
            more = await _told_by_studio(url, key, min(seconds / 4, STUDIO_TIME))
        except BaseException:
            await source.close()
            raise
        models = [filled(info, more[info.id]) if info.id in more else info for info in models]
    return Spoken(dialect, source, tuple(models))


async def _speaks_messages(url: str, key: str, seconds: float) -> None:
    """Raise unless ``/v1/messages`` is there.

    Whoever knows the route refuses an empty conversation in this dialect's form, or says a word to it (llama-server).
    """
    upstream = _upstream(url, key, seconds, prefix=anthropic.base_path, headers=anthropic.request_headers)
    body = msgspec.json.encode({"model": "", "max_tokens": 1, "messages": []})
    try:
        told = await upstream.control(upstream.head("POST", "/messages"), body)
    except _Answer as answer:
        if answer.status in {401, 403}:
            raise BackendError("the server refused the key", code=CREDENTIALS) from None
        if _kind(answer.body) != "error":
            raise BackendError(answer.message) from None
    else:
        if _kind(told) != "message":  # LM Studio says 200 to paths that it does not know
            raise BackendError("no Messages API")
    finally:
        await upstream.close()


async def _told_by_studio(url: str, key: str, seconds: float) -> dict[str, ModelInfo]:
    """What LM Studio's own list says of its models, beyond OpenAI's; empty at any other server."""
    upstream = _upstream(url, key, seconds, prefix=lambda path: path, headers=_bearer)
    try:
        rows = _studio.decode(await upstream.control(upstream.head("GET", "/api/v0/models"))).data
    except (GatewayError, msgspec.MsgspecError):
        return {}
    finally:
        await upstream.close()
    return {
        row.id: ModelInfo(
            id=row.id,
            context_length=row.loaded_context_length or row.max_context_length,
            family=row.arch,
            quantization=row.quantization,
        )
        for row in rows
    }


class _Row(Struct):
    """Of ``GET /api/v0/models``."""

    id: str
    arch: str = ""
    quantization: str = ""
    max_context_length: int = 0
    loaded_context_length: int = 0


class _Rows(Struct):
    data: list[_Row] = []


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


class _Kind(Struct):
    type: str = ""


_studio = msgspec.json.Decoder(_Rows)
_message = msgspec.json.Decoder(_Kind)


def _upstream(
    url: str, key: str, seconds: float, *, prefix: Callable[[str], str], headers: Callable[[str], dict[str, str]]
) -> Upstream:
    root = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
    timeouts = Timeouts(connect=min(seconds, 10.0), first_byte=seconds, idle=seconds, total=seconds)
    settings = RemoteSettings(url=root, api_key=key, timeouts=timeouts)
    return Upstream(NAME, settings, Path(), prefix=prefix, read_error=_Answer, headers=headers)


def _kind(body: bytes) -> str:
    """The ``type`` of a message or an error of Anthropic's; empty where there is none."""
    try:
        return _message.decode(body).type
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""


def _with_names(spoken: Sequence[Spoken]) -> tuple[Spoken, ...]:
    """A dialect without a list of models takes another one's: it is the same server."""
    other = next((each.models for each in spoken if each.models), ())
    return tuple(each if each.models else structs.replace(each, models=other) for each in spoken)
