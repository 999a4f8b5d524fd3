"""``/api/v1/models/load``, ``unload`` and ``download``: what is asked, and the answers."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from adapters.lmstudio import wire
from adapters.lmstudio.errors import error_object
from adapters.lmstudio.fields import invalid, needed, read_stay
from adapters.lmstudio.models import embeds, load_config
from adapters.reading import read_body
from canonical.errors import GatewayError, InvalidRequest
from canonical.models import LoadedModel, ModelInfo
from canonical.requests import LoadOptions

_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/+", re.IGNORECASE)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_QUANTIZATION = re.compile(r"[\w.-]{1,64}", re.ASCII)
_BODY = ("model", "context_length", "eval_batch_size", "ttl", "echo_load_config")
"""What is read of a load's body; the rest is dropped."""

_load = msgspec.json.Decoder(wire.LoadRequest, strict=False)
_unload = msgspec.json.Decoder(wire.UnloadRequest)
_download = msgspec.json.Decoder(wire.DownloadRequest)
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


class LoadQuestion(Struct, frozen=True, kw_only=True):
    """A request to load a model."""

    model: str
    options: LoadOptions
    keep_alive: float | None
    echo: bool
    """Whether the answer is to tell how it was loaded."""
    asked: dict[str, int]
    """The figures that were asked for, by their names: what was loaded says whether it has them."""
    lost: tuple[str, ...]
    """Fields that nothing here can follow."""


class DownloadState(Struct, frozen=True, kw_only=True):
    """How far a download is. Times are epoch seconds, 0 where there is none."""

    status: wire.JobStatus
    job: str = ""
    started: float = 0.0
    ended: float = 0.0
    total: int = 0
    completed: int = 0
    speed: float = 0.0
    """Bytes a second, of late."""
    now: float = 0.0
    error: GatewayError | None = None


def read_load(body: bytes) -> LoadQuestion:
    """Raises InvalidRequest where the body breaks the format."""
    asked = read_body(_load, body, invalid)
    if not asked.model:
        raise needed("model")
    said = {name for name, value in _object.decode(body).items() if value is not None}
    lost = sorted(said - set(_BODY))
    keep_alive = read_stay(asked.ttl, lost)
    figures = {"context_length": asked.context_length, "eval_batch_size": asked.eval_batch_size}
    return LoadQuestion(
        model=asked.model,
        options=LoadOptions(context=asked.context_length, batch=asked.eval_batch_size),
        keep_alive=keep_alive,
        echo=bool(asked.echo_load_config),
        asked={name: figure for name, figure in figures.items() if figure is not None},
        lost=tuple(lost),
    )


def loaded_reply(info: ModelInfo, resident: LoadedModel | None, seconds: float, *, echo: bool) -> bytes:
    """The answer of a load that took so many seconds; 0, where the model was there."""
    return _encode(
        wire.Loaded(
            type="embedding" if embeds(info) else "llm",
            instance_id=info.id,
            load_time_seconds=seconds,
            load_config=load_config(info, resident) if echo else UNSET,
        )
    )


def read_unload(body: bytes) -> str:
    """The instance that is to go, which bears its model's name. Raises InvalidRequest."""
    instance = read_body(_unload, body, invalid).instance_id
    if not instance:
        raise needed("instance_id")
    return instance


def unloaded_reply(instance: str) -> bytes:
    """The answer of an unload."""
    return _encode(wire.Unloaded(instance))


def read_download(body: bytes) -> str:
    """What is to be fetched, as a name to pull: a Hugging Face link becomes ``hf.co/org/repo:QUANT``.

    Raises:
        InvalidRequest: the body breaks the format, or a quantization goes with anything but such a link.
    """
    asked = read_body(_download, body, invalid)
    if not asked.model:
        raise needed("model")
    link = _HUB.match(asked.model)
    if link is None:
        if asked.quantization:
            raise InvalidRequest('"quantization" goes with a Hugging Face link only', param="quantization")
        return asked.model
    repository = asked.model[link.end() :].rstrip("/")
    if not _REPOSITORY.fullmatch(repository):
        raise InvalidRequest('"model": a link names a repository: https://huggingface.co/org/repo', param="model")
    if asked.quantization is None:
        return f"hf.co/{repository}"
    if not _QUANTIZATION.fullmatch(asked.quantization):
        raise InvalidRequest('"quantization" is a name such as Q4_K_M', param="quantization")
    return f"hf.co/{repository}:{asked.quantization}"


def job_reply(state: DownloadState) -> bytes:
    """How far a download is."""
    job = wire.Job(status=state.status)
    if state.status == "already_downloaded":
        return _encode(job)
    job.job_id = state.job
    job.started_at = _date(state.started)
    job.total_size_bytes = state.total or None
    job.downloaded_bytes = state.completed
    if state.status == "downloading":
        job.bytes_per_second = state.speed
        if state.total and state.speed > 0:
            job.estimated_completion = _date(state.now + (state.total - state.completed) / state.speed)
    elif state.status == "completed":
        job.completed_at = _date(state.ended)
    elif state.error is not None:
        job.error = error_object(state.error)
    return _encode(job)


def _date(moment: float) -> str | None:
    """ISO 8601 with milliseconds; None past what a date can say."""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(moment * 1000) % 1000:03d}Z"
    except (OverflowError, ValueError, OSError):
        return None
