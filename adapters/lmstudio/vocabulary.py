"""How ``/api/v1/chat`` calls what can be said to it. What was said in earlier turns came by ``previous_response_id``."""

from __future__ import annotations

from adapters.lmstudio import wire
from adapters.reading import inside_of, shape_of
from canonical.features import Feature
from canonical.requests import Vocabulary

_BEFORE = "previous_response_id"

CHAT = Vocabulary(
    names={
        **{name: (name,) for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")},
        Feature.HOT: ("temperature",),
        Feature.MAX_TOKENS: ("max_output_tokens",),
        Feature.SYSTEM: ("system_prompt", _BEFORE),
        Feature.SYSTEM_LATER: (_BEFORE,),
        Feature.IMAGE: ("input", _BEFORE),
        Feature.IMAGE_LINK: (_BEFORE,),
        Feature.IMAGE_DETAIL: (_BEFORE,),
        Feature.IMAGE_PLACE: ("input", _BEFORE),
        Feature.AUDIO: (_BEFORE,),
        Feature.THOUGHTS: (_BEFORE,),
        Feature.SIGNATURE: (_BEFORE,),
        Feature.THINK_OFF: ("reasoning",),
        Feature.THINK_ON: ("reasoning",),
        Feature.THINK_LEVEL: ("reasoning",),
        Feature.CONTEXT_LENGTH: ("context_length",),
        Feature.KEEP_ALIVE: ("ttl",),
    },
    known=frozenset(shape_of(wire.ChatRequest)),
    inside=inside_of(wire.ChatRequest),
)
"""``/api/v1/chat``."""
