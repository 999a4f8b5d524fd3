"""How ``/v1/responses`` calls what can be said to it, and which of its fields have a canonical form.

Source: OpenAI's API reference. Sampling beyond temperature and top_p is an extension of other servers.
"""

from __future__ import annotations

from adapters.openai.vocabulary import DRAW
from adapters.reading import inside_of, shape_of
from adapters.responses import wire
from canonical.features import Feature
from canonical.origin import Shape
from canonical.requests import Vocabulary

_ITEM: dict[str, Shape | None] = {
    **shape_of(wire.Call),
    **shape_of(wire.CallOutput),
    **shape_of(wire.Thoughts),
    **shape_of(wire.Message),
}
_FORM = "text.format"
_EFFORT = ("reasoning.effort",)
_CONTENT = "input[].content[]"

VOCABULARY = Vocabulary(
    names={
        **DRAW,
        Feature.MAX_TOKENS: ("max_output_tokens",),
        Feature.SYSTEM: ("instructions", "input[].role"),
        Feature.SYSTEM_LATER: ("input[].role", "previous_response_id"),
        Feature.IMAGE: (f"{_CONTENT}.image_url", "previous_response_id"),
        Feature.IMAGE_LINK: (f"{_CONTENT}.image_url", "previous_response_id"),
        Feature.IMAGE_DETAIL: (f"{_CONTENT}.detail", "previous_response_id"),
        Feature.IMAGE_PLACE: (_CONTENT, "previous_response_id"),
        Feature.AUDIO: (f"{_CONTENT}.input_audio", "previous_response_id"),
        Feature.THOUGHTS: ("input[type=reasoning]", "previous_response_id"),
        Feature.SIGNATURE: ("input[].encrypted_content", "previous_response_id"),
        Feature.TOOLS: ("tools",),
        Feature.TOOL_STRICT: ("tools[].strict",),
        Feature.TOOL_NONE: ("tool_choice",),
        Feature.TOOL_REQUIRED: ("tool_choice",),
        Feature.TOOL_NAMED: ("tool_choice",),
        Feature.PARALLEL_TOOLS: ("parallel_tool_calls",),
        Feature.JSON: (_FORM,),
        Feature.SCHEMA: (_FORM,),
        Feature.SCHEMA_NAME: (f"{_FORM}.name",),
        Feature.SCHEMA_STRICT: (f"{_FORM}.strict",),
        Feature.THINK_OFF: _EFFORT,
        Feature.THINK_ON: _EFFORT,
        Feature.THINK_MINIMAL: _EFFORT,
        Feature.THINK_LEVEL: _EFFORT,
        Feature.LOGPROBS: ("top_logprobs", "include"),
    },
    known=frozenset(shape_of(wire.Request, without=frozenset({"user"}))),
    inside={**inside_of(wire.Request), "input": _ITEM},
    idle={
        "service_tier": frozenset((b'"auto"', b'"default"')),
        "stream_options.include_obfuscation": frozenset((b"false",)),
        "text.verbosity": frozenset((b'"medium"',)),
        "user": frozenset((b'""',)),
    },
)
"""``/v1/responses``, and the counting of its tokens."""
