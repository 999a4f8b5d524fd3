"""Ollama's own field names, nothing else. Unknown fields are ignored: clients are newer than we are.

Every field may be missing or ``null``, which means the same to Ollama. What is checked by hand, because Ollama has a
wording of its own for its errors, is ``Any``; JSON that passes through unread is ``Raw``.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

Number = int | float | None

NOTHING = Raw(b"")
"""A raw field that is not there. Left out when written, which msgspec decides by identity."""

# What is checked by hand: the structs only tell of it.
Stay = Annotated[
    Any,
    Meta(
        description='How long the model stays loaded: seconds, or a duration such as "5m".',
        extra_json_schema={"type": ["number", "string", "null"]},
    ),
]
Think = Annotated[
    Any,
    Meta(
        description="Whether to think, or how long.",
        extra_json_schema={
            "anyOf": [
                {"type": "boolean"},
                {"type": "string", "enum": ["low", "medium", "high", "max"]},
                {"type": "null"},
            ]
        },
    ),
]
Format = Annotated[
    Raw, Meta(description='`"json"`, or a JSON Schema.', extra_json_schema={"type": ["string", "object", "null"]})
]
Role = Annotated[str, Meta(extra_json_schema={"enum": ["system", "user", "assistant", "tool", "developer"]})]
Texts = Annotated[Any, Meta(extra_json_schema={"type": ["string", "array", "null"], "items": {"type": "string"}})]


class Wire(Struct, kw_only=True, omit_defaults=True):
    """The policy of all structs here."""


class CalledFunction(Wire):
    """Which function a tool call means; ``arguments`` is an object."""

    index: int | None = None
    name: str | None = None
    arguments: Raw = NOTHING


class ToolCall(Wire):
    """An entry of ``tool_calls``, in a message of either direction."""

    id: str | None = None
    function: CalledFunction | None = None


class Message(Wire):
    """An entry of ``messages``."""

    role: Role | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Function(Wire):
    """A function on offer; ``parameters`` is a JSON Schema."""

    name: str | None = None
    description: str | None = None
    parameters: Raw = NOTHING


class Tool(Wire):
    """An entry of ``tools``."""

    type: str | None = None
    function: Function | None = None


class ChatRequest(Wire):
    """``POST /api/chat``."""

    model: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    stream: bool | None = None
    format: Format = NOTHING
    keep_alive: Stay = None
    options: dict[str, Any] | None = None
    think: Think = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    debug_render_only: bool | None = field(default=None, name="_debug_render_only")


class GenerateRequest(Wire):
    """``POST /api/generate``."""

    model: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    images: list[str] | None = None
    raw: bool | None = None
    stream: bool | None = None
    format: Format = NOTHING
    keep_alive: Stay = None
    options: dict[str, Any] | None = None
    think: Think = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    debug_render_only: bool | None = field(default=None, name="_debug_render_only")


class EmbedRequest(Wire):
    """``POST /api/embed``; ``input`` is a string or a list of them."""

    model: str | None = None
    input: Texts = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Stay = None


class EmbeddingsRequest(Wire):
    """``POST /api/embeddings``, the older route."""

    model: str | None = None
    prompt: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: Stay = None


class ShowRequest(Wire):
    """``POST /api/show``; ``name`` is the older spelling of ``model``."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


class TransferRequest(Wire):
    """``POST /api/pull``, ``POST /api/push``, ``DELETE /api/delete``; ``name`` as in ``ShowRequest``."""

    model: str | None = None
    name: str | None = None
    insecure: bool | None = None
    stream: bool | None = None


class CopyRequest(Wire):
    """``POST /api/copy``."""

    source: str | None = None
    destination: str | None = None


class CreateRequest(Wire):
    """``POST /api/create``. ``license`` is a string or a list of them; ``quantization`` is the older ``quantize``."""

    model: str | None = None
    name: str | None = None
    source: str | None = field(default=None, name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    template: str | None = None
    system: str | None = None
    license: Any = None
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    quantize: str | None = None
    quantization: str | None = None
    requires: str | None = None
    renderer: str | None = None
    parser: str | None = None
    remote_host: str | None = None
    stream: bool | None = None


class Progress(Wire):
    """A line of pull, push and create. A zero ``completed`` is left out."""

    status: str | None = None
    digest: str | None = ""
    total: int | None = 0
    completed: int | None = 0
    error: Any = None


class TopLogprob(Wire, kw_only=True):
    """A token that might have stood there."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class Logprob(Wire):
    """A token that stands there."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] | None = None


class AnswerMessage(Wire):
    """The ``message`` of an answer, as a reader meets it."""

    content: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None


class Answer(Wire):
    """A line or whole reply of chat (``message``) and of generate (``response``, ``thinking``), as a reader meets it."""

    model: str | None = None
    message: AnswerMessage | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None
    logprobs: list[Logprob] | None = None
    done: bool | None = None
    done_reason: str | None = None
    total_duration: Number = None
    load_duration: Number = None
    prompt_eval_count: Number = None
    prompt_eval_duration: Number = None
    eval_count: Number = None
    eval_duration: Number = None
    error: Any = None


class Metrics(Wire):
    """The end of a last chunk or whole reply: zero numbers are left out."""

    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class EmbedReply(Wire, kw_only=True):
    """The answer of ``/api/embed``."""

    model: str | None = None
    embeddings: tuple[list[float], ...]
    total_duration: Number = 0
    load_duration: Number = 0
    prompt_eval_count: Number = 0


class EmbeddingsReply(Wire):
    """The answer of ``/api/embeddings``."""

    embedding: list[float]


class Details(Struct, kw_only=True):
    """``details`` of a model. The first six are always sent: strict clients refuse a list without them."""

    parent_model: str | None = ""
    format: str | None = ""
    family: str | None = ""
    families: list[str] | None = None
    parameter_size: str | None = ""
    quantization_level: str | None = ""
    context_length: int | UnsetType | None = UNSET
    embedding_length: int | UnsetType | None = UNSET


class ListedModel(Struct, kw_only=True):
    """A row of ``/api/tags``. Some clients read ``name``, some ``model``."""

    name: str | None = ""
    model: str | None = ""
    modified_at: str | None = ""
    size: int | None = 0
    digest: str | None = ""
    details: Details | None = None
    capabilities: list[str] | UnsetType | None = UNSET


class Tags(Struct):
    """The answer of ``/api/tags``."""

    models: list[ListedModel] | None


class RunningModel(Struct, kw_only=True):
    """A row of ``/api/ps``."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class Running(Struct):
    """The answer of ``/api/ps``."""

    models: list[RunningModel]


class ShownTensor(Struct, kw_only=True):
    """A row of ``tensors``."""

    name: str = ""
    type: str = ""
    shape: list[int] = []


class Shown(Wire, kw_only=True):
    """The answer of ``/api/show``. ``model_info`` has no default, so that it is always sent."""

    license: Any = None
    modelfile: str | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    details: Details | None = None
    messages: list[Message] | None = None
    model_info: dict[str, Raw] | None
    projector_info: dict[str, Raw] | None = None
    tensors: list[ShownTensor] | None = None
    capabilities: list[str] | None = None
    modified_at: str | None = None
    requires: str | None = None
