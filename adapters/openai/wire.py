"""The vendor's structs: requests in both roles, and replies as we write them; ``seen`` has them as backends send them.

Source: OpenAI's API reference and the Python SDK 3.54; extensions of llama-server, vLLM, Ollama's ``/v1`` and LM Studio
where they are seen in the wild. Unknown fields are ignored: clients are newer than we are.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

NO_RAW = Raw()
"""A raw field that was not there. (msgspec cannot decode ``Raw | None``.)"""

Token = Annotated[int, Meta(ge=0, lt=2**31)]
Count = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

# What is read by hand, since its errors have words of their own, or is never an error: the struct only tells of it.
Choices = Annotated[int, Meta(extra_json_schema={"minimum": 1, "maximum": 16})]
Stay = Annotated[Any, Meta(description='How long the model stays loaded: seconds, or a duration such as "5m".')]
Wish = Annotated[Any, Meta(description="How long to think, as one of several vendors spells it.")]
Role = Annotated[
    str, Meta(extra_json_schema={"enum": ["system", "developer", "user", "assistant", "tool", "function"]})
]
PartType = Annotated[str, Meta(extra_json_schema={"enum": ["text", "image_url", "input_audio", "refusal"]})]
ToolType = Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
FormType = Annotated[str, Meta(extra_json_schema={"enum": ["text", "json_object", "json_schema"]})]
VectorForm = Annotated[str, Meta(extra_json_schema={"enum": ["float", "base64"]})]
Given = Annotated[str, Meta(extra_json_schema={"minLength": 1})]
Schema = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]}, description="A JSON Schema.")]


class Wire(Struct, omit_defaults=True, kw_only=True):
    """What is left at its default is not written."""


# Requests


class Function(Wire):
    """A tool's function: in ``tools`` and in the legacy ``functions``."""

    name: Given
    description: str | None = None
    parameters: Schema = NO_RAW
    strict: bool | None = None


class Tool(Wire):
    """One entry of ``tools``."""

    type: str = ""
    function: Function | None = None


class Name(Wire):
    """``{"name": …}``."""

    name: str = ""


class AllowedTool(Wire):
    """One of the tools that ``allowed_tools`` names."""

    type: str = ""
    function: Name | None = None


class AllowedTools(Wire):
    """The object of ``tool_choice`` type ``allowed_tools``."""

    mode: str = "auto"
    tools: list[AllowedTool] = []


class NamedTool(Wire):
    """``tool_choice`` as an object; legacy ``function_call`` has the name at the top."""

    type: str = ""
    function: Name | None = None
    allowed_tools: AllowedTools | None = None
    name: str | None = None


class CalledFunction(Wire):
    """The function of a call in a message: ``arguments`` is JSON text, from Ollama-minded clients an object."""

    name: str = ""
    arguments: Any = None


class Called(Wire):
    """A tool call in a message."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None


class Link(Wire):
    """The object of an ``image_url`` part."""

    url: str
    detail: str | None = None


class Sound(Wire):
    """The object of an ``input_audio`` part."""

    data: str
    format: str = ""


class Part(Wire):
    """A part of a message's content."""

    type: PartType
    text: str | None = None
    refusal: str | None = None
    image_url: str | Link | None = None
    input_audio: Sound | None = None


class Message(Wire, kw_only=True):
    """A message, as sent by clients and to backends."""

    role: Role
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[Called] | None = None
    function_call: CalledFunction | None = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(Wire):
    """``stream_options``."""

    include_usage: bool | None = None


class JsonSchema(Wire):
    """The object of ``response_format`` type ``json_schema``."""

    name: str = "response"
    schema: Schema = NO_RAW
    strict: bool | None = None


class ResponseFormat(Wire):
    """``response_format``; llama-server takes ``schema`` at the top as well."""

    type: FormType
    json_schema: JsonSchema | None = None
    schema: Schema = NO_RAW


class Draw(Wire, kw_only=True):
    """How tokens are drawn: the fields that chat and completions share, llama-server's extensions among them."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Count | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: Count | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Seed | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None


class ChatRequest(Draw, kw_only=True):
    """The body of ``/v1/chat/completions``."""

    model: str | None = None
    messages: Annotated[list[Message], Meta(extra_json_schema={"minItems": 1})]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    n: Choices | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | NamedTool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Wish = None
    reasoning: Wish = None
    thinking: Wish = None
    think: Wish = None
    thinking_budget_tokens: Wish = None
    keep_alive: Stay = None
    ttl: Stay = None
    modalities: list[str] | None = None
    grammar: str | None = None
    json_schema: Raw = NO_RAW


class CompletionRequest(Draw, kw_only=True):
    """The body of ``/v1/completions``."""

    model: str | None = None
    prompt: str | list[str | Token | list[Token]] | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = 16
    n: Choices | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    keep_alive: Stay = None
    ttl: Stay = None
    grammar: str | None = None
    json_schema: Raw = NO_RAW


class EmbeddingsRequest(Wire, kw_only=True):
    """The body of ``/v1/embeddings``."""

    model: str | None = None
    input: str | list[str | Token | list[Token]]
    encoding_format: VectorForm | None = None
    dimensions: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    keep_alive: Stay = None
    ttl: Stay = None


# Replies, as they are written


class Details(Struct):
    """``prompt_tokens_details``."""

    cached_tokens: int = 0


class OutputDetails(Struct):
    """``completion_tokens_details``."""

    reasoning_tokens: int = 0


class Usage(Struct):
    """Tokens of the whole answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: Details
    completion_tokens_details: OutputDetails


class Alternative(Struct):
    """One of ``top_logprobs``."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class Logprob(Struct):
    """A token of ``logprobs.content``."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top_logprobs: list[Alternative] = []


class Logprobs(Struct):
    """``logprobs`` of a chat choice."""

    content: list[Logprob]
    refusal: None = None


class TextLogprobs(Struct):
    """``logprobs`` of a completion's choice: four lists of equal length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class ReplyFunction(Struct):
    """The function of a call in an answer."""

    name: str
    arguments: str


class ReplyCall(Struct, kw_only=True):
    """A tool call in an answer."""

    id: str
    type: str = "function"
    function: ReplyFunction


class ReplyMessage(Struct, kw_only=True):
    """The answer itself."""

    role: str = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ReplyCall] | UnsetType = UNSET
    function_call: ReplyFunction | UnsetType = UNSET


class Choice(Struct):
    """A choice of ``chat.completion``."""

    index: int
    message: ReplyMessage
    logprobs: Logprobs | None
    finish_reason: str


class TextChoice(Struct):
    """A choice of ``text_completion``."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: str


class Reply(Struct, kw_only=True):
    """A whole ``chat.completion`` or ``text_completion``."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice] | list[TextChoice]
    usage: Usage | UnsetType = UNSET


class ErrorObject(Struct):
    """What stands under ``error``: always all four."""

    message: str
    type: str
    param: str | None
    code: str | None


class Vector(Struct, kw_only=True):
    """An entry of an embeddings reply: numbers, or base64 of little-endian float32."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Struct):
    """Tokens of an embeddings request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Struct, kw_only=True):
    """The answer of ``/v1/embeddings``."""

    object: str = "list"
    data: list[Vector]
    model: str
    usage: EmbeddingUsage | UnsetType = UNSET


class ModelMeta(Wire):
    """llama-server's ``meta``."""

    n_ctx_train: int = 0
    n_params: int = 0
    size: int = 0


class Architecture(Struct):
    """What goes in and comes out, as llama-server and OpenRouter tell it."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelRow(Struct, kw_only=True):
    """A row of ``/v1/models``."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    meta: ModelMeta | UnsetType = UNSET
    max_model_len: int | UnsetType = UNSET
    architecture: Architecture | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET


class ModelList(Struct, kw_only=True):
    """``/v1/models``."""

    object: str = "list"
    data: list[ModelRow]
