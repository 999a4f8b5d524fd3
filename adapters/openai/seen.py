"""The vendor's replies as backends really send them: any field may be missing or null, and servers differ.

Source: OpenAI's API reference, llama-server's README, and what vLLM, LM Studio, Ollama and Gemini's compatible routes are
known to answer. ``Any`` stands where they disagree about the type.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class Details(Struct, gc=False):
    """Either details object, its numbers possibly null."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(Struct, gc=False):
    """Usage as backends send it."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Timings(Struct, gc=False):
    """llama-server's ``timings``: milliseconds; ``prompt_n`` counts the tokens that were not in ``cache_n``."""

    prompt_n: int | None = None
    prompt_ms: float | None = None
    predicted_n: int | None = None
    predicted_ms: float | None = None
    cache_n: int | None = None


class Logprob(Struct):
    """A token of chat log probabilities."""

    token: str = ""
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None
    top_logprobs: list[Logprob] | None = None


class Logprobs(Struct):
    """Log probabilities in the chat form, the completions form, or neither."""

    content: list[Logprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Function(Struct):
    """A piece of a call's function."""

    name: str | None = None
    arguments: Any = None


class Call(Struct):
    """A piece of a tool call: any of it may be missing."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(Struct):
    """A delta, or a whole message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call] | None = None
    refusal: str | None = None


class Choice(Struct):
    """A choice of a chunk or of a whole answer, chat or completion."""

    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Answer(Struct):
    """A chunk, or a whole answer."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None


class Vector(Struct):
    """A vector as a backend sends it; llama-server wraps unpooled ones into a list."""

    embedding: list[float] | str
    index: int = 0


class Embeddings(Struct):
    """An embeddings reply as a backend sends it."""

    data: list[Vector] | None = None
    model: str | None = None
    usage: Usage | None = None
    error: Any = None


class Meta(Struct):
    """llama-server's ``meta`` as it is read."""

    n_ctx_train: int | None = None
    n_ctx: int | None = None
    n_params: int | None = None
    size: int | None = None


class Architecture(Struct):
    """``architecture`` as it is read."""

    input_modalities: list[str] | None = None


class Model(Struct):
    """A row of a backend's catalog, with what the various servers add."""

    id: str
    created: float | None = None
    owned_by: str | None = None
    meta: Meta | None = None
    max_model_len: int | None = None
    max_context_length: int | None = None
    context_length: int | None = None
    context_window: int | None = None
    architecture: Architecture | str | None = None
    capabilities: Any = None


class Models(Struct):
    """A backend's catalog."""

    data: list[Model] | None = None
    error: Any = None


class Adapter(Struct):
    """An adapter that a picture was made with."""

    name: str
    weight: float | None = None


class Metadata(Struct, frozen=True):
    """What another dragoman tells that a picture was made from."""

    steps: int | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    seed: int | None = None
    sampler: str | None = None
    clip_skip: int | None = None
    strength: float | None = None
    reference_scale: float | None = None
    loras: tuple[Adapter, ...] | None = None


class Picture(Struct):
    """A picture of an answer; what is not OpenAI's may be anything."""

    b64_json: str | None = None
    url: str | None = None
    seed: Any = None
    metadata: Any = None
    warnings: Any = None


class Pictures(Struct):
    """An answer of pictures."""

    data: list[Picture] | None = None
    error: Any = None


class PictureEvent(Picture):
    """An event of a stream of pictures."""

    type: str | None = None
    error: Any = None
    message: Any = None


class ErrorObject(Struct):
    """An error as backends word it: the code may be a number (llama-server) or a string."""

    message: str | None = None
    code: Any = None
    type: str | None = None
    param: str | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None
