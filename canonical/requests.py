"""What a client asks of a model. Every optional value is None where the client did not say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Raw, Struct, field

from canonical.messages import Audio, Image, Message
from canonical.models import Capability

Think = Literal["off", "on", "minimal", "low", "medium", "high", "max"]
"""How long to reason; ``on`` is the model's own measure."""

_raw_object = msgspec.json.Decoder(dict[str, Raw])


class Vocabulary(Struct, frozen=True):
    """How one route of a dialect calls what can be said to it."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A feature's name -> the paths of the fields that say it, the usual one first (``max_tokens``, ``options.seed``)."""
    known: frozenset[str] = frozenset()
    """Fields of the body that canonical values hold, or that only say how the gateway words its answer."""
    inside: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The same for the objects in some of them: ``{"options": {"seed", …}}``."""

    def name(self, feature: str, fields: Mapping[str, Raw]) -> str:
        """What the client calls a feature: the first of its spellings that the body has, else the usual one."""
        names = self.names.get(feature)
        if names is None:
            return feature
        return next((name for name in names if name.partition(".")[0] in fields), names[0])


class Origin(Struct, frozen=True):
    """The request as it came: which dialect, and its body, for fields that only that dialect knows."""

    dialect: str = ""
    body: bytes = b""
    vocabulary: Vocabulary = Vocabulary()
    lost: tuple[str, ...] = ()
    """Paths of what stood deeper in the body and has no canonical form (``messages[0].content[1].cache_control``)."""
    verbatim: bool = False
    """Whether the body's messages and tools can go to a server of this dialect as they are; who changes them canonically
    must say False."""

    def fields(self) -> dict[str, Raw]:
        """The body's fields, undecoded."""
        return _raw_object.decode(self.body)

    def unknown(self, fields: Mapping[str, Raw]) -> list[str]:
        """Paths of those of ``fields`` that are neither null nor in the vocabulary. Without one nothing is unknown."""
        known = self.vocabulary.known
        if not known:
            return []
        found = [name for name, raw in fields.items() if name not in known and bytes(raw) != b"null"]
        for outer, names in self.vocabulary.inside.items():
            raw = fields.get(outer)
            if raw is not None and bytes(raw).lstrip()[:1] == b"{":
                inner = _raw_object.decode(raw)
                found.extend(
                    f"{outer}.{name}" for name, value in inner.items() if name not in names and bytes(value) != b"null"
                )
        return found

    def extras(self, known: frozenset[str], *, inside: str = "") -> dict[str, Raw]:
        """The body's fields outside ``known``, undecoded. ``inside`` looks into that field's object instead."""
        fields = _raw_object.decode(self.body)
        if inside:
            raw = fields.get(inside)
            fields = _raw_object.decode(raw) if raw is not None and bytes(raw).lstrip()[:1] == b"{" else {}
        return {name: value for name, value in fields.items() if name not in known}


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
    echo: bool = False


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
    context_length: int | None = None
    keep_alive: float | None = None
    """Seconds the model stays loaded after this; negative: for ever."""
    origin: Origin = field(default_factory=Origin)


class Embed(Struct, frozen=True, kw_only=True):
    """Ask for one vector per input: a text or its token ids."""

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool | None = None
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


class Load(Struct, frozen=True, kw_only=True):
    """An empty request that means "load" or, with ``keep_alive`` 0, "unload" (Ollama)."""

    model: str
    keep_alive: float | None = None


def needs(request: Generate) -> frozenset[Capability]:
    """What a model must be able to do for this request."""
    found: set[Capability] = set()
    if request.prompt is None:
        found.add(Capability.CHAT)
    elif request.prompt.suffix is not None:
        found.add(Capability.INSERT)
    else:
        found.add(Capability.COMPLETE)
    if request.tools:
        found.add(Capability.TOOLS)
    if any(isinstance(part, Image | Audio) for message in request.messages for part in message.parts):
        found.add(Capability.VISION)
    return frozenset(found)
