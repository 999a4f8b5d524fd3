"""The structs of ``/api/v1``, and what ``/api/v0`` adds to OpenAI's: requests as they come, replies as they are written.

Source: LM Studio's REST documentation (0.4). Unknown fields are ignored, and reported: clients are newer than we are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Size = Annotated[int, Meta(ge=1, lt=2**31)]
Share = Annotated[float, Meta(ge=0, le=1)]

# What is checked by hand, since its errors have words of their own: the structs only tell of it.
ItemType = Annotated[str, Meta(extra_json_schema={"enum": ["text", "message", "image"]})]
Reasoning = Annotated[str, Meta(extra_json_schema={"enum": ["off", "low", "medium", "high", "on"]})]
ResponseId = Annotated[str, Meta(extra_json_schema={"pattern": "^resp_"})]
Given = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
Stay = Annotated[Any, Meta(description="Seconds for which the model stays loaded without use.")]


class Wire(Struct, omit_defaults=True, kw_only=True):
    """What is left at its default is not written."""


# Requests


class Item(Wire, kw_only=True):
    """One of ``input``: ``text`` or ``message`` with its content, or ``image``."""

    type: ItemType = ""
    content: str | None = None
    data_url: str | None = None


class ChatRequest(Wire):
    """The body of ``/api/v1/chat``."""

    model: str | None = None
    input: Given | Annotated[list[Item], Meta(extra_json_schema={"minItems": 1})] | None = None
    system_prompt: str | None = None
    integrations: Any = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    repeat_penalty: float | None = None
    max_output_tokens: Count | None = None
    reasoning: Reasoning | None = None
    context_length: Size | None = None
    store: bool | None = None
    previous_response_id: ResponseId | None = None
    ttl: Stay = None
    """Seconds, as on the other routes; this one's documentation has no word for it."""


class LoadRequest(Wire):
    """The body of ``/api/v1/models/load``."""

    model: str | None = None
    context_length: Size | None = None
    eval_batch_size: Size | None = None
    flash_attention: bool | None = None
    num_experts: Size | None = None
    offload_kv_cache_to_gpu: bool | None = None
    echo_load_config: bool | None = None
    ttl: Stay = None


class UnloadRequest(Wire):
    """The body of ``/api/v1/models/unload``."""

    instance_id: str | None = None


class DownloadRequest(Wire):
    """The body of ``/api/v1/models/download``."""

    model: str | None = None
    quantization: str | None = None


# Replies of /api/v1


class Stats(Struct, kw_only=True):
    """What an answer took."""

    input_tokens: int
    total_output_tokens: int
    reasoning_output_tokens: int
    tokens_per_second: float
    time_to_first_token_seconds: float
    model_load_time_seconds: float | UnsetType = UNSET


class Said(Struct):
    """An item of the output: a text or the thoughts."""

    type: Literal["message", "reasoning"]
    content: str


class CallMetadata(Struct):
    """Why a call cannot be carried out."""

    type: str
    tool_name: str


class InvalidCall(Struct, kw_only=True):
    """An item of the output: a call of a tool that nobody offered."""

    type: str = "invalid_tool_call"
    reason: str
    metadata: CallMetadata


class Result(Struct, kw_only=True):
    """A whole answer."""

    model_instance_id: str
    output: list[Said | InvalidCall]
    stats: Stats
    response_id: str | UnsetType = UNSET


class ErrorObject(Wire, kw_only=True):
    """What stands under ``error``."""

    type: str
    message: str
    code: str | None = None
    param: str | None = None


class Quantization(Struct):
    """How the weights are packed."""

    name: str
    bits_per_weight: float | None


class LoadConfig(Wire, kw_only=True):
    """How a model is loaded."""

    context_length: int
    eval_batch_size: int | None = None
    parallel: int | None = None
    flash_attention: bool | None = None


class Instance(Struct):
    """A loaded model."""

    id: str
    config: LoadConfig


class Reasons(Struct):
    """What can be asked of a model's thinking."""

    allowed_options: list[str]
    default: str


class Abilities(Struct):
    """``capabilities`` of a language model."""

    vision: bool
    trained_for_tool_use: bool
    reasoning: Reasons | UnsetType = UNSET


class ModelRow(Struct, kw_only=True):
    """An entry of ``/api/v1/models``; embedding models have neither architecture, capabilities nor description."""

    type: Literal["llm", "embedding"]
    publisher: str
    key: str
    display_name: str
    architecture: str | UnsetType | None = UNSET
    quantization: Quantization | None
    size_bytes: int
    params_string: str | None
    loaded_instances: list[Instance]
    max_context_length: int
    format: str | None
    capabilities: Abilities | UnsetType = UNSET
    description: str | UnsetType | None = UNSET


class ModelList(Struct):
    """``/api/v1/models``."""

    models: list[ModelRow]


class Loaded(Struct, kw_only=True):
    """The answer of a load."""

    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: float
    status: str = "loaded"
    load_config: LoadConfig | UnsetType = UNSET


class Unloaded(Struct):
    """The answer of an unload."""

    instance_id: str


JobStatus = Literal["downloading", "paused", "completed", "failed", "already_downloaded"]


class Job(Wire, kw_only=True):
    """How far a download is; what does not apply is left out."""

    job_id: str | None = None
    status: JobStatus
    bytes_per_second: float | None = None
    estimated_completion: str | None = None
    completed_at: str | None = None
    total_size_bytes: int | None = None
    downloaded_bytes: int | None = None
    started_at: str | None = None
    error: ErrorObject | None = None
    """Why it failed: a word of ours."""


# What /api/v0 adds


class OldStats(Struct, kw_only=True):
    """``stats``."""

    tokens_per_second: float
    time_to_first_token: float
    generation_time: float
    stop_reason: str


class About(Struct, kw_only=True):
    """``model_info``."""

    arch: str
    quant: str
    format: str
    context_length: int


class Runtime(Struct):
    """``runtime``."""

    name: str
    version: str
    supported_formats: list[str]


class Beside(Struct):
    """The three fields that stand beside OpenAI's."""

    stats: OldStats
    model_info: About
    runtime: Runtime


class OldRow(Wire, kw_only=True):
    """An entry of ``/api/v0/models``."""

    id: str
    object: str
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str | None = None
    compatibility_type: Literal["gguf", "mlx"]
    quantization: str | None = None
    state: Literal["loaded", "not-loaded"]
    max_context_length: int | None = None
    loaded_context_length: int | None = None
    capabilities: list[str] | None = None


class OldList(Struct, kw_only=True):
    """``/api/v0/models``."""

    object: str = "list"
    data: list[OldRow]
