"""One request pair per feature: one that says it, and one that says everything but it."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, structs

from canonical.features import Feature
from canonical.media import Blob
from canonical.messages import Audio, Image, Message, Part, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import (
    Embed,
    Generate,
    LoadOptions,
    Origin,
    Output,
    Prompt,
    Rerank,
    Sampling,
    Tool,
    ToolChoice,
    Vocabulary,
)

PNG = Image(Blob(b"\x89PNG\r\n\x1a\n", "image/png"))
SCHEMA = Raw(b'{"type":"object","properties":{"a":{"type":"string"}}}')
WEATHER = Tool(name="get_weather", description="The weather", parameters=SCHEMA)
LINK = "https://example.org/a.png"
HELLO = Message("user", (Text("Hello"),))
Asked = Generate | Embed | Rerank


def chat(*messages: Message, **more: Any) -> Generate:
    return Generate(model="m", messages=messages or (HELLO,), **more)


def user(*parts: Part, name: str = "") -> Message:
    return Message("user", parts, name)


def drawn(**sampling: Any) -> Generate:
    return chat(sampling=Sampling(**sampling))


def _earlier(*parts: Part) -> Generate:
    return chat(HELLO, Message("assistant", (*parts, Text("Hi"))), HELLO)


def _called(*, error: bool) -> Generate:
    call = Message("assistant", (ToolCall("call_1", "get_weather", '{"a":"x"}'),))
    return chat(HELLO, call, Message("tool", (ToolResult("call_1", "get_weather", "no", error),)))


def _schema(**more: Any) -> Generate:
    return chat(output=Output("schema", SCHEMA, **more))


_TOLD = Origin(vocabulary=Vocabulary(names={Feature.STOP_TOLD: ("stop_sequences",)}))
"""Of a dialect that has a word for the text that ended an answer."""
_SYSTEM = Message("system", (Text("Be kind."),))
_DRAW: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 7,
    "min_p": 0.125,
    "typical_p": 0.75,
    "repeat_penalty": 1.5,
    "repeat_last_n": 33,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "seed": 7,
    "max_tokens": 99,
    "stop": ("END",),
    "logit_bias": {"5": 1.0},
}

SAYINGS: dict[Feature, tuple[Asked, Asked]] = {
    **{Feature(name): (drawn(**{name: value}), chat()) for name, value in _DRAW.items()},
    Feature.HOT: (drawn(temperature=1.5), drawn(temperature=1.0)),
    Feature.STOP_BLANK: (drawn(stop=("END", "\n")), drawn(stop=("END",))),
    Feature.STOP_TOLD: (structs.replace(drawn(stop=("END",)), origin=_TOLD), drawn(stop=("END",))),
    Feature.SYSTEM: (chat(_SYSTEM, HELLO), chat()),
    Feature.SYSTEM_LATER: (
        chat(HELLO, Message("assistant", (Text("Hi"),)), _SYSTEM, HELLO),
        chat(HELLO, Message("assistant", (Text("Hi"),)), HELLO),
    ),
    Feature.MESSAGE_NAME: (chat(user(Text("Hello"), name="Ann")), chat()),
    Feature.IMAGE: (chat(user(PNG, Text("Hello"))), chat()),
    Feature.IMAGE_LINK: (chat(user(Image(LINK), Text("Hello"))), chat()),
    Feature.IMAGE_DETAIL: (chat(user(Image(PNG.source, "low"), Text("Hello"))), chat(user(PNG, Text("Hello")))),
    Feature.IMAGE_PLACE: (chat(user(Text("Hello"), PNG)), chat(user(PNG, Text("Hello")))),
    Feature.AUDIO: (chat(user(Audio(Blob(b"RIFF\x24\x00\x00\x00WAVE", "audio/wav")), Text("Hello"))), chat()),
    Feature.THOUGHTS: (_earlier(Reasoning("Hm.")), _earlier()),
    Feature.SIGNATURE: (_earlier(Reasoning("Hm.", "c2ln")), _earlier(Reasoning("Hm."))),
    Feature.TOOL_ERROR: (_called(error=True), _called(error=False)),
    Feature.TOOLS: (chat(tools=(WEATHER,)), chat()),
    Feature.TOOL_STRICT: (
        chat(tools=(Tool(name="f", parameters=SCHEMA, strict=True),)),
        chat(tools=(Tool(name="f", parameters=SCHEMA),)),
    ),
    Feature.TOOL_NONE: (chat(tools=(WEATHER,), tool_choice=ToolChoice("none")), chat(tools=(WEATHER,))),
    Feature.TOOL_REQUIRED: (chat(tools=(WEATHER,), tool_choice=ToolChoice("required")), chat(tools=(WEATHER,))),
    Feature.TOOL_NAMED: (
        chat(tools=(WEATHER,), tool_choice=ToolChoice("named", "get_weather")),
        chat(tools=(WEATHER,)),
    ),
    Feature.PARALLEL_TOOLS: (chat(tools=(WEATHER,), parallel_tool_calls=False), chat(tools=(WEATHER,))),
    Feature.JSON: (chat(output=Output("json")), chat()),
    Feature.SCHEMA: (_schema(), chat()),
    Feature.SCHEMA_NAME: (_schema(name="weather"), _schema()),
    Feature.SCHEMA_STRICT: (_schema(strict=True), _schema()),
    Feature.THINK_OFF: (chat(think="off"), chat()),
    Feature.THINK_ON: (chat(think="on"), chat()),
    Feature.THINK_MINIMAL: (chat(think="minimal"), chat()),
    Feature.THINK_LEVEL: (chat(think="high"), chat()),
    Feature.THINK_BUDGET: (chat(think="low", think_budget=1234), chat()),
    Feature.LOGPROBS: (chat(top_logprobs=2), chat()),
    Feature.CONTEXT_LENGTH: (chat(load=LoadOptions(context=4096)), chat()),
    Feature.BATCH: (chat(load=LoadOptions(batch=256)), chat()),
    Feature.THREADS: (chat(load=LoadOptions(threads=3)), chat()),
    Feature.GPU_LAYERS: (chat(load=LoadOptions(gpu_layers=7)), chat()),
    Feature.MAIN_GPU: (chat(load=LoadOptions(main_gpu=1)), chat()),
    Feature.MMAP: (chat(load=LoadOptions(mmap=False)), chat()),
    Feature.KEEP_ALIVE: (chat(keep_alive=60.0), chat()),
    Feature.PROMPT: (Generate(model="m", prompt=Prompt(text="Once")), chat()),
    Feature.PROMPT_TOKENS: (Generate(model="m", prompt=Prompt(tokens=(1, 2))), chat()),
    Feature.SUFFIX: (
        Generate(model="m", prompt=Prompt(text="def f(", suffix="return")),
        Generate(model="m", prompt=Prompt(text="def f(")),
    ),
    Feature.PROMPT_OUTPUT: (
        Generate(model="m", prompt=Prompt(text="Once"), output=Output("json")),
        Generate(model="m", prompt=Prompt(text="Once")),
    ),
    Feature.PROMPT_THINK: (
        Generate(model="m", prompt=Prompt(text="Once"), think="off"),
        Generate(model="m", prompt=Prompt(text="Once")),
    ),
    Feature.DIMENSIONS: (Embed(model="m", inputs=("x",), dimensions=8), Embed(model="m", inputs=("x",))),
    Feature.TRUNCATE: (Embed(model="m", inputs=("x",), truncate=True), Embed(model="m", inputs=("x",))),
    Feature.INPUT_TOKENS: (Embed(model="m", inputs=((1, 2),)), Embed(model="m", inputs=("x",))),
    Feature.TOP_N: (
        Rerank(model="m", query="q", documents=("a", "b"), top_n=1),
        Rerank(model="m", query="q", documents=("a", "b")),
    ),
}
"""Feature -> a request that says it, and the same request without it."""
