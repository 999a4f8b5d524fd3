"""What a request can ask for beyond words: one name per ability that a backend may or may not have.

``said`` reads the names off a request; ``report`` says what becomes of each. A new optional field of a canonical request
gets its name here, or nobody would learn when it is lost.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec.structs import astuple

from canonical.messages import Audio, Image, Part, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import AS_CONFIGURED, Embed, Generate, LoadOptions, Prompt, Rerank, Sampling


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
    HOT = "temperature_above_1"
    STOP_BLANK = "stop_blank"
    """A text to stop at that is white space alone."""
    STOP_TOLD = "stop_told"
    """Which of the texts to stop at ended the answer: said by who gives some in a dialect that has a word for it."""

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
    """At most one call in an answer. That there may be several holds anyway."""

    JSON = "json"
    SCHEMA = "schema"
    SCHEMA_NAME = "schema_name"
    SCHEMA_STRICT = "schema_strict"

    THINK_OFF = "think_off"
    THINK_ON = "think_on"
    THINK_MINIMAL = "think_minimal"
    THINK_LEVEL = "think_level"
    THINK_BUDGET = "think_budget"

    LOGPROBS = "logprobs"
    CONTEXT_LENGTH = "context_length"
    BATCH = "batch"
    THREADS = "threads"
    GPU_LAYERS = "gpu_layers"
    MAIN_GPU = "main_gpu"
    MMAP = "mmap"
    """That the weights are not mapped from their file. That they may be holds anyway."""
    KEEP_ALIVE = "keep_alive"

    PROMPT = "prompt"
    """Text to go on with as it stands, without a template."""
    PROMPT_TOKENS = "prompt_tokens"
    SUFFIX = "suffix"
    PROMPT_OUTPUT = "prompt_output"
    """A form of the answer to such text."""
    PROMPT_THINK = "prompt_think"
    """Thoughts, or none, before the answer to such text."""

    DIMENSIONS = "dimensions"
    TRUNCATE = "truncate"
    INPUT_TOKENS = "input_tokens"
    """Texts to embed, as token ids."""

    TOP_N = "top_n"
    """Only the best of the ranked documents."""


_SAMPLING = tuple(map(Feature, Sampling.__struct_fields__))
_NOTHING = Sampling()
LOADS = {
    Feature.CONTEXT_LENGTH: "context",
    Feature.BATCH: "batch",
    Feature.THREADS: "threads",
    Feature.GPU_LAYERS: "gpu_layers",
    Feature.MAIN_GPU: "main_gpu",
    Feature.MMAP: "mmap",
}
"""What a model must be loaded with -> its field of ``LoadOptions``."""
_STOP = Feature.STOP
_SYSTEM, _SYSTEM_LATER = Feature.SYSTEM, Feature.SYSTEM_LATER
_CHOICES = {"none": Feature.TOOL_NONE, "required": Feature.TOOL_REQUIRED, "named": Feature.TOOL_NAMED}
_THINK = {"off": Feature.THINK_OFF, "on": Feature.THINK_ON, "minimal": Feature.THINK_MINIMAL}


def said(request: Generate | Embed | Rerank) -> list[Feature]:
    """What ``request`` asks for, each name once, in a fixed order."""
    if isinstance(request, Generate):
        return _said_generate(request)
    return _said_embed(request) if isinstance(request, Embed) else _said_rerank(request)


def _said_generate(request: Generate) -> list[Feature]:
    found: list[Feature] = []
    sampling = request.sampling
    if sampling != _NOTHING:
        # Strict or not, a zip of equal lengths is the same; not, it is faster, and this runs for every request.
        found = [feature for feature, value in zip(_SAMPLING, astuple(sampling), strict=False) if value is not None]
        if sampling.temperature is not None and sampling.temperature > 1:
            found.append(Feature.HOT)
        if not sampling.stop:
            found.remove(_STOP)
        else:
            if any(map(str.isspace, sampling.stop)):
                found.append(Feature.STOP_BLANK)
            if Feature.STOP_TOLD in request.origin.vocabulary.names:
                found.append(Feature.STOP_TOLD)
    _said_messages(request, found)
    if request.tools:
        found.append(Feature.TOOLS)
        if any(tool.strict for tool in request.tools):
            found.append(Feature.TOOL_STRICT)
    choice = request.tool_choice
    if choice is not None and choice.mode in _CHOICES:
        found.append(_CHOICES[choice.mode])
    if request.parallel_tool_calls is False and request.tools:
        found.append(Feature.PARALLEL_TOOLS)
    if request.prompt is None:
        _said_form(request, found)
    else:
        _said_prompt(request, request.prompt, found)
    if request.top_logprobs is not None:
        found.append(Feature.LOGPROBS)
    if request.load != AS_CONFIGURED:
        found.extend(_said_load(request.load))
    if request.keep_alive is not None:
        found.append(Feature.KEEP_ALIVE)
    return found


def _said_load(load: LoadOptions) -> list[Feature]:
    return [
        feature
        for feature, field in LOADS.items()
        if (value := getattr(load, field)) is not None and not (feature is Feature.MMAP and value)
    ]


def _said_form(request: Generate, found: list[Feature]) -> None:
    output = request.output
    if output is not None:
        found.append(Feature.JSON if output.kind == "json" else Feature.SCHEMA)
        if output.kind == "schema" and output.name != "response":
            found.append(Feature.SCHEMA_NAME)
        if output.strict:
            found.append(Feature.SCHEMA_STRICT)
    if request.think_budget is not None:
        found.append(Feature.THINK_BUDGET)
    elif request.think is not None:
        found.append(_THINK.get(request.think, Feature.THINK_LEVEL))


def _said_prompt(request: Generate, prompt: Prompt, found: list[Feature]) -> None:
    found.append(Feature.PROMPT if prompt.tokens is None else Feature.PROMPT_TOKENS)
    if prompt.suffix is not None:
        found.append(Feature.SUFFIX)
    if request.output is not None:
        found.append(Feature.PROMPT_OUTPUT)
    if request.think is not None or request.think_budget is not None:
        found.append(Feature.PROMPT_THINK)


def _said_messages(request: Generate, found: list[Feature]) -> None:
    seen: set[Feature] = set()
    begun = False
    for message in request.messages:
        if message.role == "system":
            seen.add(_SYSTEM_LATER if begun else _SYSTEM)
        else:
            begun = True
        if message.name:
            seen.add(Feature.MESSAGE_NAME)
        parts = message.parts
        if len(parts) != 1 or type(parts[0]) is not Text:
            _said_parts(parts, seen)
    if len(seen) > 1:
        found.extend(feature for feature in Feature if feature in seen)
    else:
        found.extend(seen)


def _said_parts(parts: tuple[Part, ...], seen: set[Feature]) -> None:
    texts = False
    for part in parts:
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


def _said_embed(request: Embed) -> list[Feature]:
    found: list[Feature] = []
    if request.dimensions is not None:
        found.append(Feature.DIMENSIONS)
    if request.truncate is not None:
        found.append(Feature.TRUNCATE)
    if any(not isinstance(text, str) for text in request.inputs):
        found.append(Feature.INPUT_TOKENS)
    if request.load != AS_CONFIGURED:
        found.extend(_said_load(request.load))
    if request.keep_alive is not None:
        found.append(Feature.KEEP_ALIVE)
    return found


def _said_rerank(request: Rerank) -> list[Feature]:
    found: list[Feature] = []
    if request.top_n is not None:
        found.append(Feature.TOP_N)
    if request.truncate is not None:
        found.append(Feature.TRUNCATE)
    return found
