"""What the chat routes call what can be said to them."""

from __future__ import annotations

from adapters.hybrid import wire
from adapters.reading import inside_of, shape_of
from canonical.features import Feature
from canonical.requests import Vocabulary

CHAT = Vocabulary(
    names={
        Feature.TEMPERATURE: ("config.temperature",),
        Feature.HOT: ("config.temperature",),
        Feature.MAX_TOKENS: ("config.maxTokens",),
        Feature.TOP_P: ("config.topP",),
        Feature.PRESENCE_PENALTY: ("config.presencePenalty",),
        Feature.FREQUENCY_PENALTY: ("config.frequencyPenalty",),
        Feature.SYSTEM: ("messages[].role",),
        Feature.SYSTEM_LATER: ("messages[].role",),
        Feature.IMAGE: ("messages[].images",),
        Feature.IMAGE_PLACE: ("messages[].images",),
    },
    known=frozenset(shape_of(wire.ChatRequest)),
    inside=inside_of(wire.ChatRequest),
)
"""``/chat`` and the others."""
