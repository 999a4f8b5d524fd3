"""What OpenAI's routes call what can be said to them, as data: names of fields, which are known, and what the rest says.

Source: OpenAI's API reference; extensions of llama-server, OpenRouter, DeepSeek, LM Studio and Ollama's ``/v1``.
"""

from __future__ import annotations

from adapters.openai import wire
from adapters.openai.effort import OBJECTS
from adapters.reading import inside_of, shape_of
from canonical.features import Feature
from canonical.requests import Sampling, Vocabulary

ENGINES = frozenset({"grammar", "json_schema"})
"""Fields of llama-server's that are read only to be held to the limits."""
REASONING = ("reasoning_effort", "reasoning", "thinking", "thinking_budget_tokens", "think")
STAY = ("keep_alive", "ttl")

DRAW: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in Sampling.__struct_fields__},
    Feature.REPEAT_PENALTY: ("repeat_penalty", "repetition_penalty"),
    Feature.HOT: ("temperature",),
    Feature.STOP_BLANK: ("stop",),
}
"""How tokens are drawn, which the routes of this vendor call alike."""
_IDLE = {
    "store": frozenset((b"false",)),
    "service_tier": frozenset((b'"auto"', b'"default"')),
    "verbosity": frozenset((b'"medium"',)),
    "background": frozenset((b"false",)),
    "return_progress": frozenset((b"false",)),
    "ignore_eos": frozenset((b"false",)),
    "cache_prompt": frozenset((b"true",)),
    "user": frozenset((b'""',)),
}
_CONTENT = "messages[].content[]"
_FORM = "response_format"

CHAT = Vocabulary(
    names={
        **DRAW,
        Feature.MAX_TOKENS: ("max_completion_tokens", "max_tokens"),
        Feature.SYSTEM: ("messages[].role",),
        Feature.SYSTEM_LATER: ("messages[].role",),
        Feature.MESSAGE_NAME: ("messages[].name",),
        Feature.IMAGE: (f"{_CONTENT}.image_url",),
        Feature.IMAGE_LINK: (f"{_CONTENT}.image_url.url",),
        Feature.IMAGE_DETAIL: (f"{_CONTENT}.image_url.detail",),
        Feature.IMAGE_PLACE: (_CONTENT,),
        Feature.AUDIO: (f"{_CONTENT}.input_audio",),
        Feature.THOUGHTS: ("messages[].reasoning_content",),
        Feature.TOOLS: ("tools", "functions"),
        Feature.TOOL_STRICT: ("tools[].function.strict", "functions[].strict"),
        Feature.TOOL_NONE: ("tool_choice", "function_call"),
        Feature.TOOL_REQUIRED: ("tool_choice", "function_call"),
        Feature.TOOL_NAMED: ("tool_choice", "function_call"),
        Feature.PARALLEL_TOOLS: ("parallel_tool_calls", "functions"),
        Feature.JSON: (_FORM,),
        Feature.SCHEMA: (_FORM,),
        Feature.SCHEMA_NAME: (f"{_FORM}.json_schema.name",),
        Feature.SCHEMA_STRICT: (f"{_FORM}.json_schema.strict",),
        Feature.THINK_OFF: REASONING,
        Feature.THINK_ON: REASONING,
        Feature.THINK_MINIMAL: REASONING,
        Feature.THINK_LEVEL: REASONING,
        Feature.THINK_BUDGET: ("reasoning.max_tokens", "thinking.budget_tokens", "thinking_budget_tokens"),
        Feature.LOGPROBS: ("logprobs",),
        Feature.KEEP_ALIVE: STAY,
    },
    known=frozenset(shape_of(wire.ChatRequest, without=ENGINES)),
    inside={**inside_of(wire.ChatRequest), **OBJECTS},
    idle={**_IDLE, "stream_options.include_obfuscation": frozenset((b"false",))},
    own=frozenset(REASONING + STAY),
    talk=frozenset({"messages", "tools", _FORM}),
)
"""``/v1/chat/completions``."""

COMPLETION = Vocabulary(
    names={
        **DRAW,
        Feature.PROMPT: ("prompt",),
        Feature.PROMPT_TOKENS: ("prompt",),
        Feature.SUFFIX: ("suffix",),
        Feature.LOGPROBS: ("logprobs",),
        Feature.KEEP_ALIVE: STAY,
    },
    known=frozenset(shape_of(wire.CompletionRequest, without=ENGINES)),
    inside=inside_of(wire.CompletionRequest),
    idle=CHAT.idle,
    own=frozenset(STAY),
)
"""``/v1/completions``."""

EMBEDDINGS = Vocabulary(
    names={Feature.DIMENSIONS: ("dimensions",), Feature.INPUT_TOKENS: ("input",), Feature.KEEP_ALIVE: STAY},
    known=frozenset(shape_of(wire.EmbeddingsRequest)),
    idle=_IDLE,
    own=frozenset(STAY),
)
"""``/v1/embeddings``."""
