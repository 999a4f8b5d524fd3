"""Random requests of every route, built from the wire: any field may be there, in any order, with unknown ones anywhere.

Unknown fields have names that begin with ``x_``. Values are legal ones; what is refused is tested elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from adapters.anthropic import serve as anthropic
from adapters.dialect import Ask, EmbedAsk, LoadAsk
from adapters.lmstudio import serve as lmstudio
from adapters.ollama import serve as ollama
from adapters.openai import serve as openai
from adapters.responses import serve as responses

Fields = dict[str, Any]
Maybe = dict[str, st.SearchStrategy[Any]]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: not text.isspace() and not text.startswith(("x-anthropic-billing-header:", "Error: "))
)
NAME = st.sampled_from(["get_weather", "add", "f"])
ID = st.sampled_from(["call_1", "call_2", "toolu_3"])
PNG = "iVBORw0KGgo="
SCHEMA = st.sampled_from([{"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}}])
PART = st.floats(0, 1, width=32)
COUNT = st.integers(1, 2**31 - 1)
ODD = st.one_of(st.integers(1, 9), TEXT, st.just([1]), st.just({"x": 1}), st.just(True), st.just(False))


@st.composite
def objects(draw: st.DrawFn, needed: Maybe, optional: Maybe, *, odd: bool = True) -> Fields:
    """An object with the needed fields and some of the optional ones, perhaps with a field that nobody knows."""
    fields = {name: draw(value) for name, value in needed.items()}
    names = st.lists(st.sampled_from(sorted(optional)), unique=True, max_size=5) if optional else st.just([])
    fields.update({name: draw(optional[name]) for name in draw(names)})
    if odd and draw(st.integers(0, 9)) == 0:
        fields[draw(st.sampled_from(["x_new", "x_\r\nset-cookie", "x_é\u2028", "x_\"'"]))] = draw(ODD)
    return dict(draw(st.permutations(sorted(fields.items()))))


def _function(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[Fields]:
    return objects({"name": NAME}, {"description": TEXT, "parameters": SCHEMA, **more})


def _tools(tool: st.SearchStrategy[Fields], name: Callable[[Fields], str]) -> st.SearchStrategy[list[Fields]]:
    return st.lists(tool, min_size=1, max_size=2, unique_by=name)


_DRAW: Maybe = {
    "temperature": st.floats(0, 2, width=32),
    "top_p": PART,
    "top_k": st.integers(-1, 100),
    "min_p": PART,
    "typical_p": PART,
    "repeat_penalty": PART,
    "repeat_last_n": COUNT,
    "presence_penalty": PART,
    "frequency_penalty": PART,
    "seed": st.integers(0, 2**31),
}
_STOP = st.lists(st.sampled_from(["END", "\n", " "]), min_size=1, max_size=2)

# OpenAI

_OPENAI_DRAW: Maybe = {
    **_DRAW,
    "stop": st.just("END") | _STOP,
    "logit_bias": st.just({"5": 1.5}),
    "max_tokens": COUNT,
    "stream": st.booleans(),
    "user": TEXT,
    "store": st.booleans(),
    "service_tier": st.sampled_from(["auto", "flex"]),
    "metadata": st.just({"a": "b"}) | st.just({}),
    "grammar": st.just('root ::= "a"'),
    "min_tokens": COUNT,
}
_LINK = objects({"url": st.just(f"data:image/png;base64,{PNG}")}, {"detail": st.sampled_from(["low", "high", "auto"])})
_OPENAI_PART = objects({"type": st.just("text"), "text": TEXT}, {"cache_control": st.just({"type": "ephemeral"})}) | (
    objects({"type": st.just("image_url"), "image_url": _LINK}, {})
)
_OPENAI_CALL = objects(
    {
        "id": ID,
        "type": st.just("function"),
        "function": objects({"name": NAME, "arguments": st.just('{"a":1}') | st.just("{}")}, {}),
    },
    {},
)
_OPENAI_TURN = st.one_of(
    objects({"role": st.just("user"), "content": TEXT}, {"name": st.just("Ann")}),
    objects({"role": st.just("user"), "content": st.lists(_OPENAI_PART, min_size=1, max_size=3)}, {}),
    objects({"role": st.sampled_from(["system", "developer"]), "content": TEXT}, {}),
    objects(
        {"role": st.just("assistant"), "content": TEXT | st.none()},
        {"reasoning_content": TEXT, "refusal": st.none(), "annotations": st.just([])},
    ),
)


@st.composite
def _openai_calls(draw: st.DrawFn) -> list[Fields]:
    """A turn that calls functions, and what they answered."""
    calls = draw(st.lists(_OPENAI_CALL, min_size=1, max_size=2, unique_by=lambda call: call["id"]))
    asking = objects(
        {"role": st.just("assistant"), "content": TEXT | st.none(), "tool_calls": st.just(calls)},
        {"reasoning_content": TEXT},
    )
    answers = [
        objects({"role": st.just("tool"), "content": TEXT, "tool_call_id": st.just(call["id"])}, {}) for call in calls
    ]
    return [draw(asking), *map(draw, answers)]


_OPENAI_TOOL = objects({"type": st.just("function"), "function": _function(strict=st.booleans())}, {})
_FORM = objects(
    {
        "type": st.just("json_schema"),
        "json_schema": objects({"name": NAME, "schema": SCHEMA}, {"strict": st.booleans(), "description": TEXT}),
    },
    {},
) | st.just({"type": "json_object"})
_STAY: Maybe = {"keep_alive": st.sampled_from([60, "5m", "soon"]), "ttl": COUNT}
_EFFORT: Maybe = {
    "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high", "xhigh", "ultra"]),
    "reasoning": objects(
        {}, {"effort": st.just("low"), "max_tokens": st.integers(-1, 99_999), "enabled": st.booleans()}
    ),
    "thinking": objects({"type": st.sampled_from(["enabled", "disabled"])}, {"budget_tokens": COUNT}),
    "think": st.booleans() | st.sampled_from(["high", "much"]),
    **_STAY,
}


@st.composite
def openai_chat(draw: st.DrawFn) -> Fields:
    episodes = draw(st.lists(_OPENAI_TURN.map(lambda turn: [turn]) | _openai_calls(), max_size=4))
    at = draw(st.integers(0, len(episodes)))
    messages = [turn for some in (*episodes[:at], [{"role": "user", "content": "Hi"}], *episodes[at:]) for turn in some]
    body = draw(
        objects(
            {"messages": st.just(messages)},
            {
                **_OPENAI_DRAW,
                **_EFFORT,
                "max_completion_tokens": COUNT,
                "n": st.just(1),
                "verbosity": st.sampled_from(["low", "medium"]),
                "prediction": st.just({"type": "content", "content": "x"}),
                "response_format": _FORM,
                "stream_options": objects({"include_usage": st.booleans()}, {"include_obfuscation": st.booleans()}),
            },
        )
    )
    if draw(st.booleans()):
        body["tools"] = draw(_tools(_OPENAI_TOOL, lambda tool: tool["function"]["name"]))
        named = {"type": "function", "function": {"name": body["tools"][0]["function"]["name"]}}
        if draw(st.booleans()):
            body["tool_choice"] = draw(st.sampled_from(["none", "auto", "required", named]))
        if draw(st.booleans()):
            body["parallel_tool_calls"] = draw(st.booleans())
    if draw(st.integers(0, 4)) == 0:
        body |= {"logprobs": True, "top_logprobs": draw(st.integers(0, 20))}
    return body


openai_completion = objects(
    {"prompt": TEXT | st.just([1, 2])}, {**_OPENAI_DRAW, **_STAY, "suffix": TEXT, "logprobs": st.integers(0, 5)}
)
openai_embeddings = objects(
    {"input": TEXT | st.just([1, 2])},
    {**_STAY, "dimensions": COUNT, "user": TEXT, "encoding_format": st.sampled_from(["float", "base64"])},
)

# Ollama

_OPTIONS = objects(
    {},
    {
        **_DRAW,
        "stop": _STOP,
        "num_predict": COUNT,
        "num_ctx": COUNT,
        "num_gpu": st.integers(-1, 9),
        "mirostat": st.integers(0, 2),
        "num_thread": COUNT,
    },
)
_OLLAMA: Maybe = {
    "options": _OPTIONS,
    "format": st.just("json") | SCHEMA,
    "keep_alive": st.sampled_from([0.5, 60, "5m", -1]),
    "stream": st.booleans(),
    "truncate": st.booleans(),
    "shift": st.booleans(),
}
_OLLAMA_CALL = objects(
    {"function": objects({"name": NAME, "arguments": st.just({"a": 1})}, {"index": st.just(0)})},
    {"id": ID, "type": st.just("function")},
)
_OLLAMA_TURN = st.one_of(
    objects({"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT}, {}),
    objects({"role": st.just("user"), "content": TEXT, "images": st.just([PNG])}, {}),
    objects({"role": st.just("assistant"), "content": TEXT}, {"thinking": TEXT}),
)


@st.composite
def _ollama_calls(draw: st.DrawFn) -> list[Fields]:
    """A turn that calls functions, and what they answered, which often does not say whom."""
    calls = draw(st.lists(_OLLAMA_CALL, min_size=1, max_size=2, unique_by=lambda call: str(call.get("id"))))
    asking = objects(
        {"role": st.just("assistant"), "content": TEXT | st.just(""), "tool_calls": st.just(calls)}, {"thinking": TEXT}
    )
    answer = objects({"role": st.just("tool"), "content": TEXT}, {})
    return [draw(asking), *(draw(answer) for _ in calls)]


_OLLAMA_TOOL = objects({"type": st.just("function"), "function": _function()}, {})
_MODEL: Maybe = {"model": st.just("m")}


@st.composite
def ollama_chat(draw: st.DrawFn) -> Fields:
    episodes = draw(st.lists(_OLLAMA_TURN.map(lambda turn: [turn]) | _ollama_calls(), max_size=4))
    messages = [{"role": "user", "content": "Hi"}, *(turn for some in episodes for turn in some)]
    tools = _tools(_OLLAMA_TOOL, lambda tool: tool["function"]["name"])
    thinks: Maybe = {"think": st.booleans() | st.sampled_from(["low", "max"]), "tools": tools}
    return draw(objects({**_MODEL, "messages": st.just(messages)}, {**_OLLAMA, **thinks}))


_PROMPT: Maybe = {**_OLLAMA, "think": st.booleans(), "messages": st.just([])}
ollama_prompt = objects({**_MODEL, "prompt": TEXT, "raw": st.just(True)}, _PROMPT) | objects(
    {**_MODEL, "prompt": TEXT, "suffix": TEXT}, {**_PROMPT, "raw": st.just(False)}
)
ollama_generate = objects(
    {**_MODEL, "prompt": TEXT, "system": TEXT}, {**_PROMPT, "images": st.just([PNG]), "raw": st.just(False)}
)
_EMBEDS: Maybe = {"options": _OPTIONS, "keep_alive": st.just("5m"), "stream": st.booleans()}
ollama_embed = objects({**_MODEL, "input": TEXT}, {**_EMBEDS, "truncate": st.booleans(), "dimensions": COUNT})
ollama_embeddings = objects({**_MODEL, "prompt": TEXT}, _EMBEDS)

# Anthropic

_CACHE: Maybe = {"cache_control": st.just({"type": "ephemeral"})}
_BLOCK = objects({"type": st.just("text"), "text": TEXT}, {**_CACHE, "citations": st.none()})
_PICTURE = objects(
    {
        "type": st.just("image"),
        "source": objects({"type": st.just("base64"), "media_type": st.just("image/png"), "data": st.just(PNG)}, {}),
    },
    _CACHE,
)
_ASSISTANT = st.one_of(
    _BLOCK,
    objects({"type": st.just("thinking"), "thinking": TEXT, "signature": st.sampled_from(["", "c2ln"])}, {}),
    objects({"type": st.just("tool_use"), "id": ID, "name": NAME, "input": st.just({"a": 1})}, _CACHE),
    objects({"type": st.just("server_tool_use"), "id": ID, "name": st.just("web_search")}, {}),
)
_USER = _BLOCK | _PICTURE
_RESULT = objects(
    {"type": st.just("tool_result"), "content": TEXT | st.lists(_BLOCK, min_size=1, max_size=2)},
    {**_CACHE, "is_error": st.booleans()},
)


@st.composite
def anthropic_messages(draw: st.DrawFn) -> Fields:
    messages: list[Fields] = [{"role": "user", "content": "Hi"}]
    for number in range(draw(st.integers(0, 2))):
        asked = draw(st.lists(_ASSISTANT, min_size=1, max_size=3))
        calls = [
            {**block, "id": f"toolu_{number}{at}"} for at, block in enumerate(asked) if block["type"] == "tool_use"
        ]
        others = [block for block in asked if block["type"] != "tool_use"]
        answers = [{**draw(_RESULT), "tool_use_id": call["id"]} for call in calls]  # results come first
        told = [*answers, *draw(st.lists(_USER, min_size=1, max_size=2))]
        for role, blocks in (("assistant", [*others, *calls]), ("user", told)):
            messages.append(draw(objects({"role": st.just(role), "content": st.just(blocks)}, {})))
    tool = objects({"name": NAME}, {"description": TEXT, "input_schema": SCHEMA, "strict": st.booleans(), **_CACHE})
    vendor = st.just({"type": "web_search_20250305", "name": "web_search", "max_uses": 5})
    body = draw(
        objects(
            {**_MODEL, "max_tokens": COUNT.filter(lambda count: count != 4096), "messages": st.just(messages)},
            {
                "temperature": PART,
                "top_p": PART,
                "top_k": st.integers(0, 100),
                "stop_sequences": st.just(["END"]),
                "system": TEXT | st.lists(_BLOCK, min_size=1, max_size=2),
                "metadata": st.just({"user_id": "u"}),
                "service_tier": st.sampled_from(["auto", "standard_only"]),
                "thinking": st.sampled_from(
                    [
                        {"type": "disabled"},
                        {"type": "adaptive"},
                        {"type": "enabled", "budget_tokens": 2000, "display": "omitted"},
                    ]
                ),
                "output_config": objects({}, {"effort": st.sampled_from(["low", "high", "max"])}),
                "stream": st.booleans(),
            },
        )
    )
    if draw(st.booleans()):
        body["tools"] = draw(_tools(tool, lambda tool: tool["name"]))
        named = {"type": "tool", "name": body["tools"][0]["name"]}
        if draw(st.booleans()):
            body["tool_choice"] = draw(st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "none"}, named]))
            if body["tool_choice"]["type"] != "none" and draw(st.booleans()):
                body["tool_choice"] = {**body["tool_choice"], "disable_parallel_tool_use": draw(st.booleans())}
        if draw(st.booleans()):
            body["tools"].append(draw(vendor))
    return body


# Responses

_LINKED = objects(
    {"type": st.just("input_image"), "image_url": st.just(f"data:image/png;base64,{PNG}")},
    {"detail": st.sampled_from(["low", "auto"])},
)
_ITEM = st.one_of(
    objects({"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT}, {"type": st.just("message")}),
    objects({"role": st.just("assistant"), "content": TEXT}, {"id": TEXT, "status": st.just("completed")}),
    objects(
        {
            "role": st.just("user"),
            "content": st.lists(
                _LINKED | objects({"type": st.just("input_text"), "text": TEXT}, {}), min_size=1, max_size=3
            ),
        },
        {},
    ),
    objects({"type": st.sampled_from(["computer_call", "web_search_call"])}, {"id": TEXT}),
)


@st.composite
def _responses_calls(draw: st.DrawFn) -> list[Fields]:
    """What the model thought, the functions that it calls, and what they answered."""
    calls = draw(st.lists(ID, min_size=1, max_size=2, unique=True))
    part = objects({"type": st.just("reasoning_text"), "text": TEXT}, {})
    thoughts = objects({"type": st.just("reasoning"), "content": st.lists(part, max_size=1)}, {"id": TEXT})
    asking = {"type": st.just("function_call"), "name": NAME, "arguments": st.just('{"a":1}')}
    answer = {"type": st.just("function_call_output"), "output": TEXT}
    return [
        *draw(st.lists(thoughts, max_size=1)),
        *(draw(objects({**asking, "call_id": st.just(id)}, {"id": TEXT})) for id in calls),
        *(draw(objects({**answer, "call_id": st.just(id)}, {})) for id in calls),
    ]


@st.composite
def responses_create(draw: st.DrawFn) -> Fields:
    episodes = draw(st.lists(_ITEM.map(lambda item: [item]) | _responses_calls(), max_size=4))
    items = [{"role": "user", "content": "Hi"}, *(item for some in episodes for item in some)]
    form = objects(
        {"type": st.just("json_schema"), "name": NAME, "schema": SCHEMA}, {"strict": st.booleans(), "description": TEXT}
    ) | st.just({"type": "json_object"})
    words = objects({}, {"format": form, "verbosity": st.sampled_from(["low", "medium"])})
    thinking = objects({}, {"effort": st.sampled_from(["none", "low", "xhigh", "ultra"]), "summary": st.just("auto")})
    body = draw(
        objects(
            {"input": st.just(items) | TEXT},
            {
                **_DRAW,
                "stop": _STOP,
                "instructions": TEXT,
                "max_output_tokens": COUNT,
                "max_tool_calls": COUNT,
                "include": st.just(["reasoning.encrypted_content"]) | st.just(["web_search_call.results"]),
                "truncation": st.sampled_from(["auto", "disabled"]),
                "store": st.booleans(),
                "stream": st.booleans(),
                "metadata": st.just({"a": "b"}),
                "prompt_cache_key": TEXT,
                "service_tier": st.sampled_from(["auto", "flex"]),
                "stream_options": st.just({"include_obfuscation": False}) | st.just({"include_obfuscation": True}),
                "text": words,
                "reasoning": thinking,
                "user": TEXT,
            },
        )
    )
    tool = objects({"type": st.just("function"), "name": NAME}, {"description": TEXT, "parameters": SCHEMA})
    if draw(st.booleans()):
        body["tools"] = draw(_tools(tool, lambda tool: tool["name"]))
        named = {"type": "function", "name": body["tools"][0]["name"]}
        if draw(st.booleans()):
            body["tool_choice"] = draw(st.sampled_from(["none", "auto", "required", named]))
        if draw(st.booleans()):
            body["parallel_tool_calls"] = draw(st.booleans())
        if draw(st.booleans()):
            body["tools"].append({"type": "web_search"})
    return body


def _unworded(*_: object) -> Any:
    """How an answer is worded is tested elsewhere."""
    raise AssertionError


def read_response(body: bytes) -> Ask:
    """As the routes do it."""
    question = responses.read_create(body)
    return Ask((question.asked(),), question.stream, encoder=_unworded, whole=_unworded)


# LM Studio

_SAID = objects({"type": st.sampled_from(["text", "message"]), "content": TEXT}, {})
_SEEN = objects({"type": st.just("image"), "data_url": st.just(f"data:image/png;base64,{PNG}")}, {})
lmstudio_chat = objects(
    {**_MODEL, "input": TEXT | st.lists(_SAID | _SEEN, min_size=1, max_size=3)},
    {
        **{name: _DRAW[name] for name in ("temperature", "top_p", "top_k", "min_p", "repeat_penalty")},
        "system_prompt": TEXT,
        "integrations": st.just([]),
        "max_output_tokens": COUNT,
        "reasoning": st.sampled_from(["off", "low", "medium", "high", "on"]),
        "context_length": COUNT,
        "store": st.booleans(),
        "stream": st.booleans(),
        "ttl": COUNT | st.just("soon"),
        "draft_model": TEXT,
        "preset": TEXT,
    },
)


def read_lmstudio_chat(body: bytes) -> Ask:
    """As the routes do it."""
    chat = lmstudio.read_chat(body)
    return Ask((chat.asked(),), chat.stream, encoder=_unworded, whole=_unworded)


Read = Callable[[bytes], Ask | LoadAsk | EmbedAsk]
ROUTES: dict[str, tuple[st.SearchStrategy[Fields], Read]] = {
    "openai chat": (openai_chat(), openai.read_chat),
    "openai completion": (openai_completion, openai.read_completion),
    "openai embeddings": (openai_embeddings, openai.read_embeddings),
    "ollama chat": (ollama_chat(), ollama.read_chat),
    "ollama prompt": (ollama_prompt, ollama.read_generate),
    "ollama generate": (ollama_generate, ollama.read_generate),
    "ollama embed": (ollama_embed, ollama.read_embed),
    "ollama embeddings": (ollama_embeddings, ollama.read_embeddings),
    "anthropic messages": (anthropic_messages(), anthropic.read_messages),
    "responses create": (responses_create(), read_response),
    "lmstudio chat": (lmstudio_chat, read_lmstudio_chat),
}
"""Route -> its bodies, and what reads them."""
PAIRS = [
    (route, column)
    for route in ROUTES
    for column in ("openai", "ollama", "anthropic")
    if column != "anthropic" or route.split()[1] in {"chat", "generate", "messages", "create"}
]
"""Each route with each backend that has a word for what it asks."""


def encoded(body: Fields) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def odd_paths(value: Any, path: str = "") -> set[str]:
    """Where the fields that nobody knows stand."""
    found: set[str] = set()
    if isinstance(value, list):
        for item in value:
            found |= odd_paths(item, f"{path}[]")
    elif isinstance(value, dict):
        for name, inner in value.items():
            below = f"{path}.{name}" if path else name
            found |= {below} if name.startswith("x_") else odd_paths(inner, below)
    return found
