"""What Ollama's routes call what can be said to them, as data: names of fields, which are known, and what the rest says.

Source: Ollama's API reference and ``api/types.go`` of 0.33.
"""

from __future__ import annotations

from adapters.ollama import wire
from adapters.ollama.values import KNOWN_OPTIONS, LOAD_OPTIONS, OPTIONS
from adapters.reading import inside_of, shape_of
from canonical.features import LOADS, Feature
from canonical.requests import Vocabulary

_LOAD_NAMES = {ours: name for name, ours in LOAD_OPTIONS.items()}
_LOADS: dict[str, tuple[str, ...]] = {feature: (f"options.{_LOAD_NAMES[field]}",) for feature, field in LOADS.items()}
_SHARED: dict[str, tuple[str, ...]] = {
    **{ours: (f"options.{name}",) for name, ours in OPTIONS.items()},
    Feature.HOT: ("options.temperature",),
    Feature.STOP_BLANK: ("options.stop",),
    **_LOADS,
    Feature.JSON: ("format",),
    Feature.SCHEMA: ("format",),
    Feature.THINK_OFF: ("think",),
    Feature.THINK_ON: ("think",),
    Feature.THINK_LEVEL: ("think",),
    Feature.LOGPROBS: ("logprobs",),
    Feature.KEEP_ALIVE: ("keep_alive",),
}
_IDLE = {
    # True is Ollama's own habit, and what holds without the field.
    "truncate": frozenset((b"true",)),
    "shift": frozenset((b"true",)),
    "messages[].tool_calls[].type": frozenset((b'"function"',)),
    "options.low_vram": frozenset((b"false",)),
    "options.numa": frozenset((b"false",)),
    "options.mirostat": frozenset((b"0",)),
}
_CHAT, _GENERATE = shape_of(wire.ChatRequest), shape_of(wire.GenerateRequest)
_EITHER = frozenset(_CHAT) | frozenset(_GENERATE)
"""A prompt may go on as a conversation: no field of the other route may travel with it."""
_EMBEDS = frozenset({"model", "input", "prompt", "truncate", "dimensions", "keep_alive", "stream", "options"})

CHAT = Vocabulary(
    names={
        **_SHARED,
        Feature.SYSTEM: ("messages[].role",),
        Feature.SYSTEM_LATER: ("messages[].role",),
        Feature.IMAGE: ("messages[].images",),
        Feature.AUDIO: ("messages[].images",),
        Feature.THOUGHTS: ("messages[].thinking",),
        Feature.TOOLS: ("tools",),
    },
    known=frozenset(_CHAT),
    inside={**inside_of(wire.ChatRequest), "options": KNOWN_OPTIONS},
    idle=_IDLE,
    talk=frozenset({"messages", "tools"}),
    merged=frozenset({"options"}),
    ours=_EITHER,
)
"""``/api/chat``."""

GENERATE = Vocabulary(
    names={
        **_SHARED,
        Feature.SYSTEM: ("system",),
        Feature.IMAGE: ("images",),
        Feature.AUDIO: ("images",),
        Feature.PROMPT: ("raw", "prompt"),
        Feature.SUFFIX: ("suffix",),
        Feature.PROMPT_OUTPUT: ("format",),
        Feature.PROMPT_THINK: ("think",),
    },
    known=frozenset(_GENERATE),
    inside={"options": KNOWN_OPTIONS},
    idle=_IDLE,
    merged=frozenset({"options"}),
    ours=_EITHER,
)
"""``/api/generate``."""

EMBED = Vocabulary(
    names={
        **_LOADS,
        Feature.DIMENSIONS: ("dimensions",),
        Feature.TRUNCATE: ("truncate",),
        Feature.KEEP_ALIVE: ("keep_alive",),
    },
    known=frozenset(shape_of(wire.EmbedRequest)) | {"stream"},
    inside={"options": frozenset(LOAD_OPTIONS)},
    idle=_IDLE,
    own=frozenset({"options"}),
    ours=_EMBEDS,
)
"""``/api/embed``; vectors are drawn from nothing, so its options are all about the engine."""

EMBEDDINGS = Vocabulary(
    names={**_LOADS, Feature.KEEP_ALIVE: ("keep_alive",)},
    known=frozenset(shape_of(wire.EmbeddingsRequest)) | {"stream"},
    inside=EMBED.inside,
    idle=_IDLE,
    own=EMBED.own,
    ours=_EMBEDS,
)
"""``/api/embeddings``."""
