"""What Anthropic's routes call what can be said to them, as data: names of fields, which are known, and what the rest says.

Source: Anthropic's API reference (Messages, Token counting) and the official SDK for Python 2.x.
"""

from __future__ import annotations

from adapters.anthropic import wire
from adapters.reading import inside_of, shape_of
from canonical.features import Feature
from canonical.origin import Shape
from canonical.requests import Vocabulary

_CONTENT = "messages[].content[]"
_THINKING = ("thinking",)
_FORM = ("output_config.format", "output_format")


def _inside() -> dict[str, Shape]:
    """The structs' shapes, and what stands in the fields that they leave undecoded: blocks, and sources of blocks."""
    inside = inside_of(wire.MessagesRequest)
    block = shape_of(wire.Block)
    block["content"] = block
    block["source"] = {**shape_of(wire.Source), "content": block}
    return {**inside, "system": block, "messages": {**shape_of(wire.Message), "content": block}}


MESSAGES = Vocabulary(
    names={
        Feature.TEMPERATURE: ("temperature",),
        Feature.HOT: ("temperature",),
        Feature.TOP_P: ("top_p",),
        Feature.TOP_K: ("top_k",),
        Feature.MAX_TOKENS: ("max_tokens",),
        Feature.STOP: ("stop_sequences",),
        Feature.STOP_TOLD: ("stop_sequences",),
        Feature.SYSTEM: ("system",),
        Feature.SYSTEM_LATER: ("messages[].role",),
        Feature.IMAGE: (f"{_CONTENT}.source",),
        Feature.IMAGE_LINK: (f"{_CONTENT}.source.url",),
        Feature.IMAGE_PLACE: (_CONTENT,),
        Feature.THOUGHTS: (f"{_CONTENT}.thinking",),
        Feature.SIGNATURE: (f"{_CONTENT}.signature",),
        Feature.TOOL_ERROR: (f"{_CONTENT}.is_error",),
        Feature.TOOLS: ("tools",),
        Feature.TOOL_STRICT: ("tools[].strict",),
        Feature.TOOL_NONE: ("tool_choice",),
        Feature.TOOL_REQUIRED: ("tool_choice",),
        Feature.TOOL_NAMED: ("tool_choice",),
        Feature.PARALLEL_TOOLS: ("tool_choice.disable_parallel_tool_use",),
        Feature.SCHEMA: _FORM,
        Feature.THINK_OFF: _THINKING,
        Feature.THINK_ON: _THINKING,
        Feature.THINK_LEVEL: ("output_config.effort",),
        Feature.THINK_BUDGET: ("thinking.budget_tokens",),
    },
    known=frozenset(shape_of(wire.MessagesRequest)),
    inside=_inside(),
    idle={
        "service_tier": frozenset((b'"auto"',)),
        "speed": frozenset((b'"standard"',)),
        f"{_CONTENT}.caller": frozenset((b'{"type":"direct"}',)),
        "tools[].defer_loading": frozenset((b"false",)),
        "tools[].eager_input_streaming": frozenset((b"false",)),
    },
    own=frozenset({"thinking"}),
    talk=frozenset({"system", "messages", "tools", "tool_choice", "output_config", "output_format"}),
)
"""``/v1/messages`` and ``/v1/messages/count_tokens``."""
