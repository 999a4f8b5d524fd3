"""What clients of Ollama and of OpenAI are known to trip over, each on a live gateway with the real demo model: M1, M2, M5.

Three ways lead to the model: inside this process, behind an OpenAI-compatible server, behind an Ollama server. Numbers
in brackets are those of the Ollama and OpenAI notes on clients that the docstrings quote in short.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pydantic
import pytest

from tests.serving import Served
from tests.ways import three_ways

WAYS = ["pip", "pip-openai", "pip-ollama"]
EMBED_WAYS = ["embed", "embed-openai", "embed-ollama"]
every_way = pytest.mark.parametrize("model", WAYS)
every_embed_way = pytest.mark.parametrize("model", EMBED_WAYS)

COLD: dict[str, Any] = {"temperature": 0}
HELLO = [{"role": "user", "content": "Hello!"}]
HOW = "Hello! How can I help you?"
SUM = [{"role": "user", "content": "What is 7 + 8?"}]
ANNA_ASKED = "Give me JSON with name Anna, age 30, city Paris."
ANNA = {"name": "Anna", "age": 30, "city": "Paris"}
COLOR = "What color is the image?"
WEATHER_ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": CITY}}


class Person(pydantic.BaseModel):
    """What the demo model writes as JSON."""

    name: str
    age: int
    city: str


class Family(pydantic.BaseModel):
    """Has a schema inside."""

    one: Person


def _png(red: int, green: int, blue: int, size: int = 64) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes((red, green, blue)) * size) * size
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


RED = base64.b64encode(_png(255, 0, 0)).decode()
RED_URL = f"data:image/png;base64,{RED}"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with three_ways() as (a, _):
        yield a


@pytest.fixture(scope="module")
def http(gateway: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def native(gateway: Served) -> ollama.Client:
    return ollama.Client(gateway.url)


def chat(http: httpx.Client, **fields: Any) -> Any:
    """A whole answer of ``/v1/chat/completions``."""
    answer = http.post("/v1/chat/completions", json={"model": "pip", "messages": HELLO, **COLD, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def said(http: httpx.Client, **fields: Any) -> str:
    return str(chat(http, **fields)["choices"][0]["message"]["content"])


def native_chat(http: httpx.Client, **fields: Any) -> Any:
    """A whole answer of ``/api/chat``."""
    body = {"model": "pip", "messages": HELLO, "stream": False, "options": COLD, **fields}
    answer = http.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# What the answer may be asked for, by every way.


@every_way
def test_m1_m5_parse_gives_the_typed_object(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 3.3: ``.parse()`` sends a strict schema and expects the content to be JSON text."""
    asked: Any = [{"role": "user", "content": ANNA_ASKED}]
    parsed = sdk.chat.completions.parse(model=model, messages=asked, response_format=Person, **COLD)
    assert parsed.choices[0].message.parsed == Person(name="Anna", age=30, city="Paris")
    assert json.loads(parsed.choices[0].message.content or "") == ANNA


@every_way
def test_m1_m5_parse_of_a_cut_answer_is_a_length_error(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 3.3: finish reason ``length`` becomes LengthFinishReasonError."""
    asked: Any = [{"role": "user", "content": ANNA_ASKED}]
    with pytest.raises(openai.LengthFinishReasonError):
        sdk.chat.completions.parse(model=model, messages=asked, response_format=Person, max_tokens=5, **COLD)


@every_way
def test_m2_m5_format_json_and_schema(native: ollama.Client, model: str) -> None:
    """Ollama 7.4: ``format`` is the word json or a schema; the result is text in content or response."""
    asked = [{"role": "user", "content": ANNA_ASKED}]
    schema = Person.model_json_schema()
    assert json.loads(native.chat(model, asked, format="json", options=COLD).message.content or "") == ANNA
    assert json.loads(native.chat(model, asked, format=schema, options=COLD).message.content or "") == ANNA
    assert json.loads(native.generate(model, ANNA_ASKED, format=schema, options=COLD).response) == ANNA
    streamed = native.generate(model, ANNA_ASKED, format="json", options=COLD, stream=True)
    assert json.loads("".join(part.response for part in streamed)) == ANNA


@every_way
def test_m1_m5_json_object(http: httpx.Client, model: str) -> None:
    """OpenAI 3.3: ``json_object``, and ``text``, which is no constraint."""
    asked = [{"role": "user", "content": ANNA_ASKED}]
    assert json.loads(said(http, model=model, messages=asked, response_format={"type": "json_object"})) == ANNA
    assert said(http, model=model, response_format={"type": "text"}) == HOW


@every_way
def test_m1_m2_m5_images(sdk: openai.OpenAI, native: ollama.Client, http: httpx.Client, model: str) -> None:
    """Ollama 17.12: bare base64 natively, a data URI on /v1; clients send each to the wrong side."""
    links: list[Any] = [{"url": RED_URL}, {"url": RED_URL, "detail": "low"}, RED_URL]
    for link in links:
        picture: Any = {"type": "image_url", "image_url": link}
        asked: Any = [{"role": "user", "content": [picture, {"type": "text", "text": COLOR}]}]
        whole = sdk.chat.completions.create(model=model, messages=asked, **COLD)
        assert whole.choices[0].message.content == "The image is red."
    for image in (RED, RED_URL):
        turn = {"role": "user", "content": COLOR, "images": [image]}
        assert native_chat(http, model=model, messages=[turn])["message"]["content"] == "The image is red."
    assert native.generate(model, COLOR, images=[RED], options=COLD).response == "The image is red."
    parts = native.chat(model, [{"role": "user", "content": COLOR, "images": [_png(255, 0, 0)]}], options=COLD)
    assert parts.message.content == "The image is red."


@every_way
@pytest.mark.parametrize("think", [True, "low", "medium", "high", "max"])
def test_m2_m5_thoughts_arrive_in_thinking(native: ollama.Client, model: str, think: Any) -> None:
    """Ollama 7.3: the reasoning goes to ``thinking`` and never into the content, which comes after it."""
    whole = native.chat(model, SUM, think=think, options=COLD)
    assert (whole.message.thinking, whole.message.content) == ("I must add 7 and 8.", "7 + 8 = 15")
    parts = list(native.chat(model, SUM, think=think, options=COLD, stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "I must add 7 and 8."
    assert "".join(part.message.content or "" for part in parts) == "7 + 8 = 15"
    kinds = [bool(part.message.thinking) for part in parts if part.message.thinking or part.message.content]
    assert kinds == sorted(kinds, reverse=True)
    prompt = native.generate(model, SUM[0]["content"], think=think, options=COLD)
    assert (prompt.thinking, prompt.response) == ("I must add 7 and 8.", "7 + 8 = 15")


@every_way
def test_m2_m5_no_thoughts_when_off(native: ollama.Client, model: str) -> None:
    """Ollama 7.3: ``think: false`` leaves nothing in ``thinking``."""
    message = native.chat(model, SUM, think=False, options=COLD).message
    assert (message.thinking, message.content) == (None, "7 + 8 = 15")


def test_m2_think_of_another_word_is_refused(http: httpx.Client) -> None:
    """Ollama 7.3: 400 that lists what there is."""
    answer = http.post("/api/chat", json={"model": "pip", "messages": HELLO, "think": "extreme"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith('invalid think value: "extreme" (must be "high", "medium"')


@every_way
@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
def test_m1_m5_reasoning_effort(sdk: openai.OpenAI, model: str, effort: Any) -> None:
    """OpenAI 6: thoughts stand in ``reasoning_content``, all of them before the first piece of content."""
    asked: Any = SUM
    chunks = sdk.chat.completions.create(
        model=model, messages=asked, reasoning_effort=effort, stream=True, extra_body=COLD
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = [(delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas]
    assert "".join(thoughts) == "I must add 7 and 8."
    assert "".join(delta.content or "" for delta in deltas) == "7 + 8 = 15"
    first = next(place for place, delta in enumerate(deltas) if delta.content)
    assert not any(thoughts[first:])
    whole = sdk.chat.completions.create(model=model, messages=asked, reasoning_effort=effort, **COLD)
    assert (whole.choices[0].message.model_extra or {})["reasoning_content"] == "I must add 7 and 8."


@every_way
@pytest.mark.parametrize("effort", ["none", "a word of next year", None])
def test_m1_m5_no_reasoning_effort(http: httpx.Client, model: str, effort: Any) -> None:
    """OpenAI 3: an unknown effort is never a 400."""
    message = chat(http, model=model, messages=SUM, reasoning_effort=effort)["choices"][0]["message"]
    assert message["content"] == "7 + 8 = 15"
    assert "reasoning_content" not in message


@every_way
def test_m1_m5_stream_helper_gathers_a_tool_call(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 14.2, 14.3: the helper appends whatever is repeated, and indexes by ``index``."""
    asked: Any = WEATHER_ASKED
    with sdk.chat.completions.stream(model=model, messages=asked, tools=[WEATHER], **COLD) as stream:
        kinds = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    assert (choice.finish_reason, choice.message.role) == ("tool_calls", "assistant")
    (call,) = choice.message.tool_calls or []
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert call.id


@every_way
def test_m1_m5_tool_choice_none_calls_nothing(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 3.2: with ``none`` the model writes a message; a call must not come as text either."""
    asked: Any = WEATHER_ASKED
    answer = sdk.chat.completions.create(model=model, messages=asked, tools=[WEATHER], tool_choice="none", **COLD)
    assert not answer.choices[0].message.tool_calls
    assert "tool_call" not in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("model", ["pip", "pip-openai"])
@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "function": {"name": "get_weather"}},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "get_weather"}}],
            },
        },
    ],
)
def test_m1_m5_a_call_can_be_forced(http: httpx.Client, model: str, choice: Any) -> None:
    """OpenAI 3.2: the forms of ``tool_choice``. LangChain, for one, asks for structured answers like this."""
    for asked in (WEATHER_ASKED, HELLO):  # also where the model would not call unasked
        whole = chat(http, model=model, messages=asked, tools=[WEATHER], tool_choice=choice)["choices"][0]
        (call,) = whole["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert set(json.loads(call["function"]["arguments"])) == {"city"}
        assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)


@pytest.mark.parametrize("model", ["pip", "pip-openai"])
def test_m1_m5_a_forced_call_streams(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 5.2: in pieces, also with thoughts before it and with references in the tool's schema."""
    person: Any = openai.pydantic_function_tool(Family)
    choice: Any = {"type": "function", "function": {"name": "Family"}}
    asked: Any = [{"role": "user", "content": ANNA_ASKED}]
    for effort in ("none", "low"):
        with sdk.chat.completions.stream(
            model=model, messages=asked, tools=[person], tool_choice=choice, reasoning_effort=effort, **COLD
        ) as stream:
            done = stream.get_final_completion().choices[0]
        (call,) = done.message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, Family)
        assert (done.finish_reason, done.message.content or "") == ("tool_calls", "")
    cut = sdk.chat.completions.create(
        model=model, messages=asked, tools=[person], tool_choice=choice, max_tokens=14, **COLD
    )
    assert cut.choices[0].finish_reason == "length"


@every_way
@pytest.mark.parametrize("arguments", ['{"city":"Paris"}', {"city": "Paris"}])
def test_m1_m5_tool_history(http: httpx.Client, model: str, arguments: Any) -> None:
    """OpenAI 14.8, Ollama 17.6: ``content: null`` beside calls; arguments as text, or as an object from Ollama's friends."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    told = [
        *WEATHER_ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "sunny"}]},
    ]
    assert said(http, model=model, messages=told, tools=[WEATHER]) == "The result is sunny."


@every_way
def test_m1_m5_legacy_functions(http: httpx.Client, model: str) -> None:
    """OpenAI 3: ``functions`` are answered by ``function_call``, whole and streamed, and their results are read."""
    functions = [WEATHER["function"]]
    whole = chat(http, model=model, messages=WEATHER_ASKED, functions=functions)["choices"][0]
    assert whole["finish_reason"] == "function_call"
    assert whole["message"]["function_call"]["name"] == "get_weather"
    assert json.loads(whole["message"]["function_call"]["arguments"]) == {"city": "Paris"}
    told = [*WEATHER_ASKED, whole["message"], {"role": "function", "name": "get_weather", "content": "sunny"}]
    assert said(http, model=model, messages=told, functions=functions) == "The result is sunny."
    assert "tool_call" not in said(http, model=model, messages=WEATHER_ASKED, functions=functions, function_call="none")


@every_way
def test_m1_m5_two_choices(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 5.1: with ``n`` 2 every frame bears the right index, and each choice ends once."""
    asked: Any = SUM
    whole = sdk.chat.completions.create(model=model, messages=asked, n=2, **COLD)
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [
        (0, "7 + 8 = 15"),
        (1, "7 + 8 = 15"),
    ]
    text, ends = ["", ""], []
    for chunk in sdk.chat.completions.create(model=model, messages=asked, n=2, stream=True, **COLD):
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
            ends += [choice.index] * bool(choice.finish_reason)
    assert (text, ends) == (["7 + 8 = 15"] * 2, [0, 1])


@every_way
@pytest.mark.parametrize("top", [None, 0, 2])
def test_m1_m5_chat_logprobs(sdk: openai.OpenAI, model: str, top: int | None) -> None:
    """OpenAI 4: one entry a token, with as many alternatives as were asked for; none is no reason to send none."""
    fields: Any = {"model": model, "messages": SUM, "max_tokens": 3, "logprobs": True, "top_logprobs": top, **COLD}
    whole = sdk.chat.completions.create(**fields).choices[0]
    assert whole.logprobs is not None
    tokens = whole.logprobs.content or []
    assert len(tokens) == 3
    assert all(len(token.top_logprobs) == (top or 0) and token.logprob <= 0 and token.bytes for token in tokens)
    assert "".join(token.token for token in tokens).startswith(whole.message.content or "?")
    streamed = sdk.chat.completions.create(**fields, stream=True)
    again = [token for chunk in streamed for choice in chunk.choices for token in (_content(choice.logprobs))]
    assert [token.token for token in again] == [token.token for token in tokens]
    assert all(len(token.top_logprobs) == (top or 0) for token in again)


def _content(logprobs: Any) -> list[Any]:
    return [] if logprobs is None else logprobs.content or []


@every_way
@pytest.mark.parametrize("top", [0, 2])
def test_m1_m5_completion_logprobs(sdk: openai.OpenAI, model: str, top: int) -> None:
    """OpenAI 8: four lists of equal length, offsets counted in characters, whole and streamed."""
    fields: Any = {"model": model, "prompt": "Hello", "max_tokens": 2, "logprobs": top, **COLD}
    whole = sdk.completions.create(**fields).choices[0]
    found = whole.logprobs
    assert found is not None
    assert "".join(found.tokens or []) == whole.text
    assert found.text_offset == [0, len((found.tokens or [""])[0])]
    assert [len(row or {}) for row in found.top_logprobs or []] == [top, top]
    assert all(number is not None and number <= 0 for number in found.token_logprobs or [None])
    offsets: list[int] = []
    for chunk in sdk.completions.create(**fields, stream=True):
        if chunk.choices[0].logprobs is not None:
            offsets += chunk.choices[0].logprobs.text_offset or []
    assert offsets == found.text_offset


@every_way
@pytest.mark.parametrize("top", [None, 2])
def test_m2_m5_native_logprobs(native: ollama.Client, model: str, top: int | None) -> None:
    """Ollama 7.5: ``num_predict`` n gives n entries; alternatives appear only when asked for."""
    options = {"temperature": 0, "num_predict": 3}
    whole = native.chat(model, SUM, logprobs=True, top_logprobs=top, options=options)
    prompt = native.generate(model, SUM[0]["content"], logprobs=True, top_logprobs=top, options=options)
    parts = list(native.chat(model, SUM, logprobs=True, top_logprobs=top, options=options, stream=True))
    for found in (whole.logprobs, prompt.logprobs, [token for part in parts for token in part.logprobs or []]):
        assert len(found or []) == 3
        assert all(len(token.top_logprobs or []) == (top or 0) for token in found or [])


@every_way
def test_m1_m2_m5_stop(http: httpx.Client, native: ollama.Client, model: str) -> None:
    """OpenAI 3, Ollama 5: a stop string is not given out, streamed neither; empty ones and ``null`` mean none."""
    count = [{"role": "user", "content": "Count to 5"}]
    for stop in (", 3", [", 3"], ["x", ", 3", "y", "z", "q"]):
        assert said(http, model=model, messages=count, stop=stop) == "1, 2"
    for empty in ("", [], [""], None):
        assert said(http, model=model, stop=empty) == HOW
    parts = native.chat(model, count, options={**COLD, "stop": [", 3"]}, stream=True)
    assert "".join(part.message.content or "" for part in parts) == "1, 2"
    assert native_chat(http, model=model, messages=count, options={**COLD, "stop": ", 3"})["done_reason"] == "stop"


@every_way
def test_m1_m5_limits_of_length(http: httpx.Client, model: str) -> None:
    """Ollama 17.17, OpenAI 14.12: ``max_completion_tokens`` counts and wins; -1, as LM Studio's friends write, is none."""
    story = [{"role": "user", "content": "Tell me a story."}]
    for limit in ({"max_completion_tokens": 4, "max_tokens": 50}, {"max_tokens": 4}, {"max_tokens": "4"}):
        whole = chat(http, model=model, messages=story, **limit)
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 4
    for limit in ({"max_tokens": -1}, {"max_tokens": 0}, {"max_tokens": None}):
        assert chat(http, model=model, **limit)["choices"][0]["finish_reason"] == "stop"


@every_way
def test_m1_m5_prompt_lists(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 8: P prompts times n are P*n choices, prompt p's k-th at p*n + k; the limit is 16 where none is said."""
    prompts = [f"<|im_start|>user\nWhat is {a} + 1?<|im_end|>\n<|im_start|>assistant\n" for a in (2, 3)]
    whole = sdk.completions.create(model=model, prompt=prompts, n=2, **COLD)
    assert [(choice.index, choice.text) for choice in whole.choices] == [
        (0, "2 + 1 = 3"),
        (1, "2 + 1 = 3"),
        (2, "3 + 1 = 4"),
        (3, "3 + 1 = 4"),
    ]
    text = ["", ""]
    for chunk in sdk.completions.create(model=model, prompt=prompts, stream=True, **COLD):
        assert chunk.object == "text_completion"
        text[chunk.choices[0].index] += chunk.choices[0].text
    assert text == ["2 + 1 = 3", "3 + 1 = 4"]
    story = sdk.completions.create(model=model, prompt=f"{prompts[0]}x\n" * 3, **COLD)
    assert (story.usage.completion_tokens if story.usage else 0) <= 16
    assert (
        sdk.completions.create(model=model, prompt="Hello", echo=True, max_tokens=2, **COLD)
        .choices[0]
        .text.startswith("Hello")
    )


@every_way
def test_m1_m2_m5_what_the_demo_model_cannot_do_is_said(http: httpx.Client, model: str) -> None:
    """Ollama 1.3: ``does not support insert``; token ids, which it cannot take beside its projector, in words too."""
    answer = http.post("/v1/completions", json={"model": model, "prompt": "a", "suffix": "b"})
    assert (answer.status_code, "does not support insert" in answer.json()["error"]["message"]) == (400, True)
    answer = http.post("/api/generate", json={"model": model, "prompt": "a", "suffix": "b"})
    assert (answer.status_code, "does not support insert" in answer.json()["error"]) == (400, True)
    answer = http.post("/v1/completions", json={"model": model, "prompt": [5, 6, 7]})
    assert answer.status_code == 400
    assert "token ids" in answer.json()["error"]["message"]


# Embeddings.


@every_embed_way
def test_m1_m2_m5_dimensions(http: httpx.Client, native: ollama.Client, model: str) -> None:
    """Ollama 8.1, OpenAI 9: cut, then of unit length again; base64 is little-endian float32 of the same numbers."""
    row = native.embed(model, "a text", dimensions=4).embeddings[0]
    assert len(row) == 4
    assert sum(x * x for x in row) == pytest.approx(1, abs=1e-4)
    body = {"model": model, "input": "a text", "dimensions": 4}
    plain, packed = (
        http.post("/v1/embeddings", json={**body, **form}).json()["data"][0]["embedding"]
        for form in ({}, {"encoding_format": "base64"})
    )
    assert plain == pytest.approx(list(row), abs=1e-5)
    assert struct.unpack("<4f", base64.b64decode(packed)) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("model", ["embed", "embed-openai"])
def test_m1_m5_inputs_of_token_ids(sdk: openai.OpenAI, model: str) -> None:
    """OpenAI 9: LangChain sends what tiktoken made."""
    assert len(sdk.embeddings.create(model=model, input=[5, 6, 7]).data) == 1
    assert [row.index for row in sdk.embeddings.create(model=model, input=[[5, 6], [7]]).data] == [0, 1]


@every_embed_way
def test_m1_m2_m5_a_text_too_long_to_embed(http: httpx.Client, model: str) -> None:
    """Ollama 8.1: refused with ``truncate`` false; OpenAI 2: never cut, and the code says why."""
    long = "word " * 2000
    answer = http.post("/api/embed", json={"model": model, "input": long, "truncate": False})
    assert answer.status_code == 400
    assert "the input length exceeds the context length" in answer.json()["error"]
    answer = http.post("/v1/embeddings", json={"model": model, "input": long})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    if model != "embed-openai":  # where nobody cuts, and the gateway cannot count
        assert len(http.post("/api/embed", json={"model": model, "input": long}).json()["embeddings"]) == 1


@pytest.mark.parametrize("model", ["embed", "embed-ollama"])
def test_m2_m5_an_empty_text_among_others_has_its_vector(native: ollama.Client, model: str) -> None:
    """Ollama 8.1: a batch with an empty document in it, as loaders of documents send them. OpenAI's servers refuse that."""
    one, empty, two = native.embed(model, ["a text", "", "another"]).embeddings
    assert [one, two] == native.embed(model, ["a text", "another"]).embeddings
    assert len(empty) == len(one)


@every_embed_way
def test_m2_m5_empty_inputs(http: httpx.Client, model: str) -> None:
    """Ollama 8: no input loads the model and answers no vectors; anything but texts is ``invalid input type``."""
    for fields in ({}, {"input": ""}, {"input": []}, {"input": None}):
        assert http.post("/api/embed", json={"model": model, **fields}).json()["embeddings"] == []
    assert http.post("/api/embeddings", json={"model": model, "prompt": ""}).json() == {"embedding": []}
    answer = http.post("/api/embed", json={"model": model, "input": 5})
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid input type"})
    assert [http.post("/v1/embeddings", json={"model": model, "input": bad}).status_code for bad in ("", [], None)] == [
        400
    ] * 3
