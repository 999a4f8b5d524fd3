"""Anthropic's official clients, unchanged, against a running gateway on the real demo model: M4, M5.

Gateway A has the model inside, and reaches gateway B three times: in OpenAI's dialect, in Ollama's and in Anthropic's.
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator

import anthropic
import ollama
import openai
import pytest

from tests.serving import ROOT, Served
from tests.test_end_to_end import FRANCE, PARIS
from tests.ways import WAYS, four_ways

COLD = {"extra_body": {"temperature": 0}, "max_tokens": 200}
WEATHER = {
    "name": "get_weather",
    "description": "Weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SUM = [{"role": "user", "content": "What is 7 + 8?"}]

ways = pytest.mark.parametrize("model", WAYS)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with four_ways() as (a, _):
        yield a


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        yield client


def red_png() -> str:
    """A red picture of 64x64, in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * 64) * 64)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b"")
    return base64.b64encode(png).decode()


@ways
def test_m5_a_message(client: anthropic.Anthropic, model: str) -> None:
    answer = client.messages.create(model=model, messages=FRANCE, system="Be brief.", **COLD)
    (block,) = answer.content
    assert (block.type, block.text) == ("text", PARIS)
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", model, "assistant")
    assert answer.usage.output_tokens > 3
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) > 5
    assert answer._request_id


@ways
def test_m5_a_stream(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(model=model, messages=FRANCE, **COLD) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert "".join(pieces) == PARIS
    assert len(pieces) > 3, "the text came in one piece"
    assert (message.stop_reason, message.content[0].text) == ("end_turn", PARIS)
    assert message.usage.output_tokens > 3
    raw = [event.type for event in client.messages.create(model=model, messages=FRANCE, stream=True, **COLD)]
    assert raw[:2] == ["message_start", "content_block_start"]
    assert raw[-3:] == ["content_block_stop", "message_delta", "message_stop"]


@ways
@pytest.mark.parametrize("streamed", [False, True])
def test_m5_a_tool_call_and_back(client: anthropic.Anthropic, model: str, streamed: bool) -> None:
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask = {"model": model, "messages": asked, "tools": [WEATHER], **COLD}
    if streamed:
        with client.messages.stream(**ask) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(**ask)
    (call,) = answer.content
    assert (answer.stop_reason, call.type, call.name, call.input) == (
        "tool_use", "tool_use", "get_weather", {"city": "Paris"},
    )  # fmt: skip
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    told = [*asked, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    again = client.messages.create(model=model, messages=told, tools=[WEATHER], **COLD)
    assert again.content[0].text == "The result is sunny."


@ways
def test_m5_thoughts(client: anthropic.Anthropic, model: str) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = client.messages.create(model=model, messages=SUM, thinking=thinking, **COLD)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "I must add 7 and 8."
    assert answer.content[1].text == "7 + 8 = 15"
    with client.messages.stream(model=model, messages=SUM, thinking={"type": "adaptive"}, **COLD) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in streamed.content] == ["thinking", "text"]
    assert streamed.content[0].thinking == "I must add 7 and 8."
    unasked = client.messages.create(model=model, messages=SUM, **COLD)
    assert [block.type for block in unasked.content] == ["text"]
    told = [*SUM, {"role": "assistant", "content": answer.content}, *FRANCE]
    assert client.messages.create(model=model, messages=told, **COLD).content[0].text == PARIS


@ways
def test_m5_a_picture(client: anthropic.Anthropic, model: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": red_png()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What color is the image?"}]
    answer = client.messages.create(model=model, messages=[{"role": "user", "content": content}], **COLD)
    assert answer.content[0].text == "The image is red."


@ways
def test_m5_a_begun_answer_is_gone_on_with(client: anthropic.Anthropic, model: str) -> None:
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of France is "}]
    assert client.messages.create(model=model, messages=begun, **COLD).content[0].text.strip() == "Paris."


@ways
@pytest.mark.parametrize("choice", ["any", "tool", "none"])
def test_m5_a_tool_can_be_forced_and_forbidden(client: anthropic.Anthropic, model: str, choice: str) -> None:
    named = {"name": "get_weather"} if choice == "tool" else {}
    asked = {"model": model, "messages": [{"role": "user", "content": "What is the weather in Paris?"}], **COLD}
    ask = {**asked, "tools": [WEATHER], "tool_choice": {"type": choice, **named}}
    kinds = [block.type for block in client.messages.create(**ask).content]
    assert kinds == (["text"] if choice == "none" else ["tool_use"])


@ways
def test_m5_limits_stops_and_forms(client: anthropic.Anthropic, model: str) -> None:
    short = client.messages.create(model=model, messages=FRANCE, **{**COLD, "max_tokens": 2})
    assert (short.stop_reason, PARIS.startswith(short.content[0].text)) == ("max_tokens", True)
    cut = client.messages.create(model=model, messages=FRANCE, stop_sequences=[" is"], **COLD)
    assert cut.content[0].text == "The capital of France"
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    form = {"format": {"type": "json_schema", "schema": schema}}
    formed = client.messages.create(model=model, messages=FRANCE, output_config=form, **COLD)
    assert json.loads(formed.content[0].text) == {"answer": PARIS}


def test_m5_a_prompt_is_counted_exactly(client: anthropic.Anthropic) -> None:
    for model in ("pip", "pip-anthropic"):
        for more in ({}, {"tools": [WEATHER]}, {"system": "Be brief."}):
            counted = client.messages.count_tokens(model=model, messages=FRANCE, **more)
            answer = client.messages.create(model=model, messages=FRANCE, **more, **COLD)
            cached = answer.usage.cache_read_input_tokens or 0
            assert counted.input_tokens == answer.usage.input_tokens + cached
    for model in ("pip-openai", "pip-ollama"):
        with pytest.raises(anthropic.APIStatusError, match="cannot count tokens") as caught:
            client.messages.count_tokens(model=model, messages=FRANCE)
        assert caught.value.status_code == 501


@ways
def test_m4_errors_are_the_sdks_own(client: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: none") as missing:
        client.messages.create(model="none", messages=FRANCE, **COLD)
    assert missing.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as long:
        client.messages.create(model=model, messages=[{"role": "user", "content": "word " * 6000}], **COLD)
    assert long.value.type == "invalid_request_error"


@ways
def test_m4_what_coding_agents_send_is_taken(client: anthropic.Anthropic, model: str) -> None:
    """``?beta=true``, betas by header, fields and marks of next year, the vendor's own tools, a block about bills."""
    answer = client.beta.messages.create(
        model=model,
        betas=["claude-code-20250219", "context-management-2025-06-27", "news-2030-01-01"],
        system=[
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=abc;"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        messages=[{"role": "user", "content": [{"type": "text", "text": FRANCE[0]["content"], "cache_control": None}]}],
        tools=[WEATHER, {"type": "web_search_20250305", "name": "web_search"}],
        metadata={"user_id": "u"},
        max_tokens=50,
        extra_body={"temperature": 0, "context_management": {"edits": []}, "news": {"of": 1}},
    )
    assert answer.content[0].text == PARIS


def test_models_of_both_dialects_on_one_path(client: anthropic.Anthropic, gateway: Served) -> None:
    listed = {model.id: model for model in client.models.list(limit=2)}
    assert set(WAYS) <= set(listed)
    assert listed["pip"].max_input_tokens == 4096
    assert client.models.retrieve("pip-openai").display_name == "pip-openai"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("none")
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as other:
        assert set(WAYS) <= {model.id for model in other.models.list() if model.object == "model"}


def test_m5_other_dialects_through_an_anthropic_backend(gateway: Served) -> None:
    model = "pip-anthropic"
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        chunks = client.chat.completions.create(model=model, messages=FRANCE, temperature=0, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == PARIS
        tool = {"name": "get_weather", "description": "Weather", "parameters": WEATHER["input_schema"]}
        asked = [{"role": "user", "content": "What is the weather in Paris?"}]
        answer = client.chat.completions.create(
            model=model, messages=asked, tools=[{"type": "function", "function": tool}], temperature=0
        )
        (call,) = answer.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
        told = [
            *asked,
            answer.choices[0].message.to_dict(),
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        again = client.chat.completions.create(model=model, messages=told, temperature=0)
        assert again.choices[0].message.content == "The result is sunny."
        thought = client.chat.completions.create(model=model, messages=SUM, temperature=0, reasoning_effort="high")
        assert thought.choices[0].message.reasoning_content == "I must add 7 and 8."
        with pytest.raises(openai.BadRequestError, match="no log probabilities"):
            client.chat.completions.create(model=model, messages=FRANCE, logprobs=True)
        with pytest.raises(openai.BadRequestError, match="conversations"):
            client.completions.create(model=model, prompt="Once")
    native = ollama.Client(gateway.url)
    assert native.chat(model, FRANCE, options={"temperature": 0}).message.content == PARIS
    assert native.chat(model, SUM, think=True, options={"temperature": 0}).message.thinking == "I must add 7 and 8."
    picture = [{"role": "user", "content": "What color is the image?", "images": [red_png()]}]
    assert native.chat(model, picture, options={"temperature": 0}).message.content == "The image is red."


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript client needs Node")
def test_m5_the_javascript_client(gateway: Served) -> None:
    script = ROOT / "tests" / "js" / "anthropic.mjs"
    run = subprocess.run(["node", script, gateway.url, *WAYS], capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    for model in WAYS:
        assert told[model] == {
            "message": PARIS,
            "stream": PARIS,
            "call": ["get_weather", {"city": "Paris"}, "tool_use"],
            "result": "The result is sunny.",
            "thoughts": ["I must add 7 and 8.", "7 + 8 = 15"],
        }
    assert told["listed"]
    assert told["notFound"] == [404, "not_found_error"]
    assert told["counted"] > 5
