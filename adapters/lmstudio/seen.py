"""What LM Studio's ``/api/v1`` and ``/api/v0`` answer, as it is read: any field may be missing, and versions differ."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Quantization(Struct):
    """How the weights are stored."""

    name: str | None = None


class Config(Struct):
    """How an instance was loaded."""

    context_length: int | None = None


class Instance(Struct):
    """A model in memory."""

    id: str
    config: Config | None = None


class Capabilities(Struct):
    """What a model was made for."""

    vision: bool | None = None
    reasoning: Any = None


class Model(Struct):
    """A row of ``/api/v1/models``."""

    key: str
    type: str | None = None
    publisher: str | None = None
    architecture: str | None = None
    quantization: Quantization | None = None
    size_bytes: int | None = None
    params_string: str | None = None
    loaded_instances: list[Instance] | None = None
    max_context_length: int | None = None
    format: str | None = None
    capabilities: Capabilities | None = None
    variants: list[str] | None = None


class Models(Struct):
    """``/api/v1/models``."""

    models: list[Model] | None = None
    error: Any = None


class BetaModel(Struct):
    """A row of ``/api/v0/models``."""

    id: str
    type: str | None = None
    publisher: str | None = None
    arch: str | None = None
    compatibility_type: str | None = None
    quantization: str | None = None
    state: str | None = None
    max_context_length: int | None = None
    loaded_context_length: int | None = None


class BetaModels(Struct):
    """``/api/v0/models``."""

    data: list[BetaModel] | None = None
    error: Any = None


class Loaded(Struct):
    """The answer to a load."""

    instance_id: str | None = None
    error: Any = None


class Job(Struct):
    """The answer to a download, and to a look at it."""

    job_id: str | None = None
    status: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None
    error: Any = None
