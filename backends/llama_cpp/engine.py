"""What both engines of llama.cpp are behind: OpenAI-shaped JSON in, OpenAI-shaped chunks out, blocking.

Both speak JSON bytes, so that either can run in the gateway's process or in a worker, and so that one reader (the
client half of the OpenAI adapter) reads both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from canonical.errors import BackendError, Busy, GatewayError, InvalidRequest, Unsupported

EngineName = Literal["xllamacpp", "llama-cpp-python"]
Kind = Literal["chat", "completion", "count"]
"""``count`` takes the body of a chat, and answers one chunk of how many tokens its prompt has."""
Emit = Callable[[bytes], bool]
"""Takes one chunk; True means stop. With no bytes it only asks: at once, and from any thread."""


CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
SplitMode = Literal["none", "layer", "row", "tensor"]
Numa = Literal["", "distribute", "isolate", "numactl"]
RopeScaling = Literal["", "none", "linear", "yarn", "longrope"]
Pooling = Literal["", "mean", "cls", "last"]


class Lora(Struct, frozen=True, kw_only=True):
    """An adapter laid over the weights."""

    path: str
    scale: float = 1.0


class Draft(Struct, frozen=True, kw_only=True):
    """A small model that guesses ahead; the large one checks the guesses in one step."""

    path: str
    max: int = 16
    """Tokens guessed at most before a check."""
    min: int = 0
    """Fewer than so many are not worth a check."""
    p_min: float = 0.75
    """It stops guessing where it is less sure than this."""
    gpu_layers: int = 0


class Rope(Struct, frozen=True, kw_only=True):
    """How positions are encoded, where that differs from what the file says. 0 and -1: as the file says."""

    scaling: RopeScaling = ""
    freq_base: float = 0.0
    freq_scale: float = 0.0
    yarn_orig_ctx: int = 0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_beta_fast: float = -1.0


class Start(Struct, frozen=True, kw_only=True):
    """One model and how to run it: all that an engine is told.

    The names are llama.cpp's. An engine that cannot do what is set here refuses to start (``Unable``).
    """

    path: str
    projector: str = ""
    loras: tuple[Lora, ...] = ()
    draft: Draft | None = None
    template: str = ""
    """A Jinja text instead of the file's own chat template."""
    embedding: bool = False
    ranking: bool = False
    pooling: Pooling = ""
    """How a text's vector is made of its tokens'; empty: as the file says."""
    threads: int = 1
    threads_batch: int = 0
    """For prompts; 0: as many as for answers."""
    context: int = 4096
    """Tokens per slot."""
    slots: int = 1
    batch: int = 512
    batch_gpu: int = 0
    """The batch of an engine that alone knows whether it has a GPU, if it has one; 0: the same."""
    ubatch: int = 0
    """Tokens computed in one go of a batch; 0: all of it."""
    gpu_layers: int = 0
    """-1: all."""
    main_gpu: int = 0
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    """Shares of the GPUs; empty: by their free memory."""
    override_tensor: str = ""
    """Which tensors stay where: ``pattern=buffer`` pairs, with commas between."""
    cpu_moe: int = 0
    """Layers whose experts stay in RAM; -1: all."""
    kv_offload: bool = True
    """Keys and values are on the GPU where their layers are."""
    flash_attention: bool | None = None
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    swa_full: bool = False
    """Models with a sliding window keep all of the past, so that any part of it can be used again."""
    rope: Rope = Rope()
    mmap: bool | None = None
    """The file is mapped into memory, and read as it is needed; None: where that is possible."""
    mlock: bool = False
    """The weights are never swapped out."""
    numa: Numa = ""
    check_tensors: bool = False
    """Look for numbers that are none while loading."""
    image_min_tokens: int = 0
    """Tokens that a picture becomes, where the model leaves that open; 0: as the model says."""
    image_max_tokens: int = 0
    projector_gpu: bool = True


class Unable(ValueError):
    """An engine has no such setting."""


def experts(layers: int) -> list[str]:
    """Overrides that keep the experts of the first ``layers`` layers in RAM; -1: of all."""
    form = r"blk\.{}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
    return [form.format(r"\d+")] if layers < 0 else [form.format(layer) for layer in range(layers)]


class Engine(Protocol):
    """A loaded model. Every method blocks; ``stream`` may run in ``Start.slots`` threads at once."""

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        """Answer an OpenAI request body chunk by chunk: JSON without framing; an error is ``{"error": ...}``."""

    def embed(self, body: bytes) -> bytes:
        """Answer an OpenAI embeddings body."""

    def rerank(self, body: bytes) -> bytes:
        """Answer the body of ``/v1/rerank``."""

    def close(self) -> None:
        """Free the memory; nothing runs any more."""


class Counted(Struct, frozen=True):
    """The chunk that answers a count."""

    prompt_tokens: int


read_counted = msgspec.json.Decoder(Counted).decode


class _Failure(Struct):
    message: str = ""
    code: int | str | None = None
    type: str | None = None
    n_ctx: int | None = None


class _Failed(Struct):
    error: _Failure = msgspec.field(default_factory=_Failure)


_failed = msgspec.json.Decoder(_Failed)
_ERROR = b'{"error":'


def is_error(chunk: bytes) -> bool:
    """Whether a chunk tells of a failure instead of a piece of the answer."""
    return chunk.startswith(_ERROR)


def write_error(status: int, message: str, kind: str = "invalid_request_error", *, context: int = 0) -> bytes:
    """A failure as a chunk, in the shape that llama.cpp's own server has."""
    failure = _Failure(message=message, code=status, type=kind, n_ctx=context or None)
    return msgspec.json.encode(_Failed(failure))


def read_error(chunk: bytes, *, context: int) -> GatewayError:
    """A failure's chunk as our error. ``context``: tokens a slot has, for the message."""
    try:
        failure = _failed.decode(chunk).error
    except msgspec.MsgspecError:
        return BackendError("the engine answered an error that cannot be read")
    status = failure.code if isinstance(failure.code, int) else 500
    message = failure.message or "the engine failed"
    if failure.type == "exceed_context_size_error" or "context size" in message:
        limit = failure.n_ctx or context
        text = f"This model's maximum context length is {limit} tokens, and the request has more: {message}"
        return InvalidRequest(text, code="context_length_exceeded", param="messages")
    if status == 501:
        return Unsupported(message)
    if status in {429, 503}:
        return Busy(message, retry_after=1)
    if 400 <= status < 500:
        return InvalidRequest(message)
    if "grammar stack" in message:
        return InvalidRequest("no token of this model can follow the grammar here", param="grammar")
    return BackendError(f"the engine failed: {message}")
