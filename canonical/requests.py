"""What a client asks of a model. Every optional value is None where the client did not say it."""

from __future__ import annotations

from typing import Literal

from msgspec import Raw, Struct, field

from canonical.messages import Image, Message, ToolCall, ToolResult
from canonical.models import Capability
from canonical.origin import Origin, Vocabulary

__all__ = [
    "Embed",
    "Embeddings",
    "Generate",
    "Load",
    "LoadOptions",
    "Origin",
    "Output",
    "Prompt",
    "Ranked",
    "Ranking",
    "Rerank",
    "Sampling",
    "Think",
    "Tool",
    "ToolChoice",
    "Vocabulary",
    "needs",
]

Think = Literal["off", "on", "minimal", "low", "medium", "high", "max"]
"""How long to reason; ``on`` is the model's own measure."""


class Sampling(Struct, frozen=True, kw_only=True):
    """How tokens are drawn. None: the backend's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    """None: until done."""
    stop: tuple[str, ...] = ()
    logit_bias: dict[str, float] | None = None


class LoadOptions(Struct, frozen=True, kw_only=True):
    """How the model is to be loaded. None: as configured; another value than the loaded model's may mean to load it anew."""

    context: int | None = None
    """Tokens one sequence may have, prompt and answer together."""
    batch: int | None = None
    """Prompt tokens computed at once."""
    threads: int | None = None
    gpu_layers: int | None = None
    """Negative: all."""
    main_gpu: int | None = None
    mmap: bool | None = None
    """Whether the weights are mapped from the file rather than read."""


AS_CONFIGURED = LoadOptions()


class Tool(Struct, frozen=True, kw_only=True):
    """A function the model may call. ``parameters`` is its JSON Schema as text, ``{}``-like or empty for none."""

    name: str
    description: str | None = None
    parameters: Raw | None = None
    strict: bool | None = None


class ToolChoice(Struct, frozen=True):
    """Whether the model may, must not or must call a tool; ``named`` goes with one ``name``."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""


class Output(Struct, frozen=True):
    """The form of the answer: any JSON object, or JSON of a schema (its text)."""

    kind: Literal["json", "schema"]
    schema: Raw | None = None
    name: str = "response"
    strict: bool | None = None


class Prompt(Struct, frozen=True, kw_only=True):
    """Text (or token ids) to continue without a chat template; ``suffix`` is what follows the gap to fill."""

    text: str = ""
    tokens: tuple[int, ...] | None = None
    suffix: str | None = None


class Generate(Struct, frozen=True, kw_only=True):
    """Ask a model to go on: a conversation in ``messages``, or a ``prompt`` as it stands."""

    model: str
    messages: tuple[Message, ...] = ()
    prompt: Prompt | None = None
    stream: bool = True
    """False: the client takes the answer whole, so a backend may ask its upstream for it whole."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    output: Output | None = None
    think: Think | None = None
    think_budget: int | None = None
    """At most so many tokens of reasoning; ``think`` then says the nearest level, for who knows no budgets."""
    sampling: Sampling = field(default_factory=Sampling)
    top_logprobs: int | None = None
    """None: no log probabilities; 0: of the chosen tokens alone; n: of n alternatives too."""
    load: LoadOptions = AS_CONFIGURED
    keep_alive: float | None = None
    """Seconds the model stays loaded after this; negative: for ever."""
    tenant: str = ""
    """Prompts may share computed prefixes inside one tenant only; stands for the key that the request came with."""
    origin: Origin = field(default_factory=Origin)


class Embed(Struct, frozen=True, kw_only=True):
    """Ask for one vector per input: a text or its token ids."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool | None = None
    load: LoadOptions = AS_CONFIGURED
    keep_alive: float | None = None
    origin: Origin = field(default_factory=Origin)


class Embeddings(Struct, frozen=True, kw_only=True):
    """The answer to ``Embed``: one unit-length vector per input, in its order."""

    model: str
    vectors: tuple[list[float], ...]
    prompt_tokens: int | None = None
    total: int = 0
    """Nanoseconds from arrival to answer."""
    load: int = 0


class Rerank(Struct, frozen=True, kw_only=True):
    """Ask how well each document answers the query."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    """Only so many of the best; None: all."""
    truncate: bool | None = None
    """Cut a document that is too long for the model, instead of refusing it."""
    origin: Origin = field(default_factory=Origin)


class Ranked(Struct, frozen=True, gc=False):
    """The document at position ``index`` of the request. Scores compare within one answer; their range is the model's."""

    index: int
    score: float


class Ranking(Struct, frozen=True, kw_only=True):
    """The answer to ``Rerank``: the best first, documents of one score in the request's order."""

    model: str
    ranked: tuple[Ranked, ...]
    prompt_tokens: int | None = None


class Load(Struct, frozen=True, kw_only=True):
    """An empty request that means "load" or, with ``keep_alive`` 0, "unload" (Ollama)."""

    model: str
    load: LoadOptions = AS_CONFIGURED
    keep_alive: float | None = None
    think: Think | None = None
    """What is going to be asked of it."""


def has_calls(request: Generate) -> bool:
    """Whether earlier turns hold calls of tools, or their results."""
    return any(isinstance(part, ToolCall | ToolResult) for message in request.messages for part in message.parts)


def needs(request: Generate) -> frozenset[Capability]:
    """What a model must be able to do for this request. Whether it hears is known to nobody before it is asked."""
    found: set[Capability] = set()
    if request.prompt is None:
        found.add(Capability.CHAT)
    elif request.prompt.suffix is not None:
        found.add(Capability.INSERT)
    else:
        found.add(Capability.COMPLETE)
    if request.tools:
        found.add(Capability.TOOLS)
    if any(isinstance(part, Image) for message in request.messages for part in message.parts):
        found.add(Capability.VISION)
    return frozenset(found)
