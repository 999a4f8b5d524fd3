"""How ``/v1/responses`` calls what can be said to it, and which of its fields have a canonical form."""

from __future__ import annotations

from canonical.features import Feature
from canonical.requests import Vocabulary

_DRAWN = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "logit_bias",
)
"""Called as the canonical fields are; all but the first two are extensions of servers that are not the vendor's."""

_IN_INPUT = (
    Feature.SYSTEM_LATER,
    Feature.MESSAGE_NAME,
    Feature.IMAGE,
    Feature.IMAGE_LINK,
    Feature.IMAGE_DETAIL,
    Feature.IMAGE_PLACE,
    Feature.AUDIO,
    Feature.THOUGHTS,
    Feature.SIGNATURE,
    Feature.TOOL_ERROR,
)

VOCABULARY = Vocabulary(
    names={
        **{name: (name,) for name in _DRAWN},
        **{feature.value: ("input", "previous_response_id") for feature in _IN_INPUT},
        Feature.REPEAT_PENALTY.value: ("repeat_penalty", "repetition_penalty"),
        Feature.MAX_TOKENS.value: ("max_output_tokens",),
        Feature.SYSTEM.value: ("instructions", "input"),
        Feature.TOOLS.value: ("tools",),
        Feature.TOOL_STRICT.value: ("tools.strict",),
        Feature.TOOL_NONE.value: ("tool_choice",),
        Feature.TOOL_REQUIRED.value: ("tool_choice",),
        Feature.TOOL_NAMED.value: ("tool_choice",),
        Feature.PARALLEL_TOOLS.value: ("parallel_tool_calls",),
        Feature.JSON.value: ("text.format",),
        Feature.SCHEMA.value: ("text.format",),
        Feature.SCHEMA_NAME.value: ("text.format.name",),
        Feature.SCHEMA_STRICT.value: ("text.format.strict",),
        Feature.THINK_OFF.value: ("reasoning.effort",),
        Feature.THINK_ON.value: ("reasoning.effort",),
        Feature.THINK_LEVEL.value: ("reasoning.effort",),
        Feature.LOGPROBS.value: ("top_logprobs", "include"),
    },
    known=frozenset(
        {
            *_DRAWN,
            "background",
            "include",
            "input",
            "instructions",
            "max_output_tokens",
            "metadata",
            "model",
            "parallel_tool_calls",
            "previous_response_id",
            "reasoning",
            "repeat_penalty",
            "repetition_penalty",
            "store",
            "stream",
            "stream_options",
            "text",
            "tool_choice",
            "tools",
            "top_logprobs",
            "truncation",
        }
    ),
    inside={
        "reasoning": frozenset({"effort", "summary", "generate_summary"}),
        "text": frozenset({"format"}),
        "stream_options": frozenset({"include_obfuscation"}),
    },
)
