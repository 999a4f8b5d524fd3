"""What is known of a model before it runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from msgspec import Raw, Struct, field

from canonical.messages import Message


class Capability(StrEnum):
    """What a model can be asked for."""

    CHAT = "chat"
    COMPLETE = "complete"
    INSERT = "insert"
    EMBED = "embed"
    RERANK = "rerank"
    VISION = "vision"
    TOOLS = "tools"
    REASONING = "reasoning"
    TRANSLATE = "translate"
    DETECT = "detect"
    """Tell which language a text is in."""
    MATCH = "match"
    """Tell how well each of some labels fits a picture."""
    READ = "read"
    """Find the text in a picture."""
    PAINT = "paint"
    """Make pictures."""


OF_TEXT = frozenset(Capability) - {
    Capability.TRANSLATE,
    Capability.DETECT,
    Capability.MATCH,
    Capability.READ,
    Capability.PAINT,
}
"""What models of text and vectors do: those are what most dialects know."""
CHATS = frozenset({Capability.CHAT})
"""What a model does that is listed where there is nothing but chats."""


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A row of the catalog. Unknown numbers are 0, unknown texts empty."""

    id: str
    backend: str = ""
    capabilities: frozenset[Capability] = frozenset()
    modified: int = 0
    """Epoch nanoseconds."""
    size: int = 0
    """Bytes on disk."""
    digest: str = ""
    """64 hex digits of a SHA-256, without prefix."""
    format: str = ""
    family: str = ""
    parameter_count: int = 0
    parameter_size: str = ""
    """``7B`` and the like, where a backend tells only that."""
    quantization: str = ""
    context_length: int = 0
    """Tokens one sequence may have."""
    embedding_length: int = 0
    owner: str = ""
    inline_thinking: bool | Literal["opened"] = False
    """It was seen to write its thoughts into its text; ``opened``: without the tag that begins them."""
    pairs: tuple[tuple[str, str], ...] = ()
    """The languages that it translates, from one to another, as codes of ``languages``."""
    title: str = ""
    """What people call it; empty: the id."""
    loras: tuple[str, ...] = ()
    """Ids of the adapters that can be laid over it."""
    trouble: str = ""
    """Why it cannot be loaded as it is, in words for who asks for it."""


def spelling(name: str) -> str:
    """The form in which names that mean the same are equal: lower case, without ``:latest``."""
    return name.casefold().removesuffix(":latest")


class Tensor(Struct, frozen=True, gc=False):
    """A row of a model file's table of weights."""

    name: str
    type: str
    shape: tuple[int, ...]


class ModelDetails(Struct, frozen=True, kw_only=True):
    """What ``/api/show`` tells beyond the catalog row."""

    info: ModelInfo
    metadata: dict[str, Raw] = field(default_factory=dict)
    """GGUF-style keys (``general.architecture``, ``llama.context_length``) as JSON values."""
    template: str = ""
    system: str = ""
    parameters: str = ""
    """Its own options, one a line: name, blanks, JSON value. A list has a line for each item."""
    messages: tuple[Message, ...] = ()
    """A conversation that stands before each of its own."""
    license: str = ""
    source: str = ""
    """The model that it was made from."""
    requires: str = ""
    """The least version of Ollama that it says it needs."""
    projector: dict[str, Raw] = field(default_factory=dict)
    """As ``metadata``, of the file that lets it see."""
    tensors: tuple[Tensor, ...] = ()


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A row of ``/api/ps``: a model that holds memory now."""

    info: ModelInfo
    size: int = 0
    """Bytes of memory."""
    size_vram: int = 0
    expires: int | None = None
    """Epoch nanoseconds; None: never."""
    context_length: int = 0
    slots: int = 0
    """Requests it runs at once; 0: as many as come."""
    batch: int = 0
    """Prompt tokens computed at once; 0: unknown."""
    loading: bool = False
    """It is on its way, and its memory is taken already."""
    absent: bool = False
    """It was opened, and the server that has it in its memory was seen without it since."""
