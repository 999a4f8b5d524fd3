"""What a request can ask for beyond words: one name per ability that a backend may or may not have.

``said`` reads the names off a request; ``report`` says what becomes of each. A new optional field of a canonical request
gets its name here, or nobody would learn when it is lost.
"""

from __future__ import annotations

from enum import StrEnum

from canonical.messages import Audio, Image, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import Embed, Generate, Sampling


class Feature(StrEnum):
    """One thing that a client can say. Those of ``Sampling`` bear its fields' names."""

    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    TOP_K = "top_k"
    MIN_P = "min_p"
    TYPICAL_P = "typical_p"
    REPEAT_PENALTY = "repeat_penalty"
    REPEAT_LAST_N = "repeat_last_n"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    SEED = "seed"
    MAX_TOKENS = "max_tokens"
    STOP = "stop"
    LOGIT_BIAS = "logit_bias"

    SYSTEM = "system"
    """Instructions before the conversation."""
    SYSTEM_LATER = "system_later"
    """Instructions amid the conversation."""
    MESSAGE_NAME = "message_name"
    """Who of several speakers says a message."""
    IMAGE = "image"
    IMAGE_LINK = "image_link"
    IMAGE_DETAIL = "image_detail"
    IMAGE_PLACE = "image_place"
    """An image that stands behind or between texts of its message."""
    AUDIO = "audio"
    THOUGHTS = "thoughts"
    """What the model thought in earlier turns."""
    SIGNATURE = "signature"
    """A vendor's proof of these."""
    TOOL_ERROR = "tool_error"
    """That a tool failed, said by more than its text."""

    TOOLS = "tools"
    TOOL_STRICT = "tool_strict"
    """Arguments held to the tool's schema."""
    TOOL_NONE = "tool_choice_none"
    TOOL_REQUIRED = "tool_choice_required"
    TOOL_NAMED = "tool_choice_named"
    PARALLEL_TOOLS = "parallel_tool_calls"
    """At most one call in an answer, or explicitly several."""

    JSON = "json"
    SCHEMA = "schema"
    SCHEMA_NAME = "schema_name"
    SCHEMA_STRICT = "schema_strict"

    THINK_OFF = "think_off"
    THINK_ON = "think_on"
    THINK_LEVEL = "think_level"
    THINK_BUDGET = "think_budget"

    LOGPROBS = "logprobs"
    CONTEXT_LENGTH = "context_length"
    KEEP_ALIVE = "keep_alive"

    PROMPT = "prompt"
    """Text to go on with as it stands, without a template."""
    PROMPT_TOKENS = "prompt_tokens"
    SUFFIX = "suffix"

    DIMENSIONS = "dimensions"
    TRUNCATE = "truncate"
    INPUT_TOKENS = "input_tokens"
    """Texts to embed, as token ids."""


_SAMPLING = tuple((name, Feature(name)) for name in Sampling.__struct_fields__)
_NOTHING = Sampling()
_CHOICES = {"none": Feature.TOOL_NONE, "required": Feature.TOOL_REQUIRED, "named": Feature.TOOL_NAMED}
_THINK = {"off": Feature.THINK_OFF, "on": Feature.THINK_ON}


def said(request: Generate | Embed) -> list[Feature]:
    """What ``request`` asks for, each name once, in a fixed order."""
    return _said_embed(request) if isinstance(request, Embed) else _said_generate(request)


def _said_generate(request: Generate) -> list[Feature]:
    found: list[Feature] = []
    sampling = request.sampling
    if sampling != _NOTHING:
        for name, feature in _SAMPLING:
            value = getattr(sampling, name)
            if value is not None and value != ():
                found.append(feature)
    _said_messages(request, found)
    if request.tools:
        found.append(Feature.TOOLS)
        if any(tool.strict for tool in request.tools):
            found.append(Feature.TOOL_STRICT)
    choice = request.tool_choice
    if choice is not None and choice.mode in _CHOICES:
        found.append(_CHOICES[choice.mode])
    if request.parallel_tool_calls is not None and request.tools:
        found.append(Feature.PARALLEL_TOOLS)
    output = request.output
    if output is not None:
        found.append(Feature.JSON if output.kind == "json" else Feature.SCHEMA)
        if output.kind == "schema" and output.name != "response":
            found.append(Feature.SCHEMA_NAME)
        if output.strict is not None:
            found.append(Feature.SCHEMA_STRICT)
    if request.think_budget is not None:
        found.append(Feature.THINK_BUDGET)
    elif request.think is not None:
        found.append(_THINK.get(request.think, Feature.THINK_LEVEL))
    if request.top_logprobs is not None:
        found.append(Feature.LOGPROBS)
    if request.context_length is not None:
        found.append(Feature.CONTEXT_LENGTH)
    if request.keep_alive is not None:
        found.append(Feature.KEEP_ALIVE)
    prompt = request.prompt
    if prompt is not None:
        found.append(Feature.PROMPT if prompt.tokens is None else Feature.PROMPT_TOKENS)
        if prompt.suffix is not None:
            found.append(Feature.SUFFIX)
    return found


def _said_messages(request: Generate, found: list[Feature]) -> None:
    seen: set[Feature] = set()
    begun = False
    for message in request.messages:
        if message.role == "system":
            seen.add(Feature.SYSTEM_LATER if begun else Feature.SYSTEM)
        else:
            begun = True
        if message.name:
            seen.add(Feature.MESSAGE_NAME)
        texts = False
        for part in message.parts:
            kind = type(part)
            if kind is Text:
                texts = True
            elif isinstance(part, Image):
                seen.add(Feature.IMAGE_LINK if isinstance(part.source, str) else Feature.IMAGE)
                if part.detail:
                    seen.add(Feature.IMAGE_DETAIL)
                if texts:
                    seen.add(Feature.IMAGE_PLACE)
            elif isinstance(part, ToolResult):
                if part.error:
                    seen.add(Feature.TOOL_ERROR)
            elif isinstance(part, Reasoning):
                if part.text:
                    seen.add(Feature.THOUGHTS)
                if part.signature is not None:
                    seen.add(Feature.SIGNATURE)
            elif kind is Audio:
                seen.add(Feature.AUDIO)
            else:
                assert kind is ToolCall
    if seen:
        found.extend(feature for feature in Feature if feature in seen)


def _said_embed(request: Embed) -> list[Feature]:
    found: list[Feature] = []
    if request.dimensions is not None:
        found.append(Feature.DIMENSIONS)
    if request.truncate is not None:
        found.append(Feature.TRUNCATE)
    if any(not isinstance(text, str) for text in request.inputs):
        found.append(Feature.INPUT_TOKENS)
    if request.keep_alive is not None:
        found.append(Feature.KEEP_ALIVE)
    return found
