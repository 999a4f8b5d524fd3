"""The official clients, unchanged, against a running gateway on the real demo model: M1, M2, M5.

Gateway A has the model inside, and reaches gateway B twice: as an OpenAI-compatible server and as an Ollama server. So
each client dialect takes three ways to the model, two of them over HTTP and through both halves of a codec.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import ollama
import openai
import pytest

from tests.serving import ROOT, Served
from tests.ways import EMBED_WAYS, THREE_WAYS, three_ways

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
COLD = {"temperature": 0}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with three_ways() as (a, _):
        yield a


@pytest.fixture(scope="module")
def openai_client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(gateway: Served) -> ollama.Client:
    return ollama.Client(gateway.url)


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m1_m5_openai_chat(openai_client: openai.OpenAI, model: str) -> None:
    answer = openai_client.chat.completions.create(model=model, messages=FRANCE, **COLD)
    assert answer.choices[0].message.content == PARIS
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == model
    assert answer.usage.completion_tokens > 3
    assert answer.usage.prompt_tokens > 5


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m1_m5_openai_stream(openai_client: openai.OpenAI, model: str) -> None:
    chunks = list(
        openai_client.chat.completions.create(
            model=model, messages=FRANCE, stream=True, stream_options={"include_usage": True}, **COLD
        )
    )
    text = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(text) == PARIS
    assert sum(map(bool, text)) > 3, "the text came in one piece"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens > 3


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m1_m5_openai_completion(openai_client: openai.OpenAI, model: str) -> None:
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    answer = openai_client.completions.create(model=model, prompt=prompt, max_tokens=40, **COLD)
    assert answer.choices[0].text == PARIS
    streamed = openai_client.completions.create(model=model, prompt=prompt, max_tokens=3, stream=True, **COLD)
    chunks = list(streamed)
    assert PARIS.startswith("".join(chunk.choices[0].text for chunk in chunks))
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m1_m5_openai_tool_call(openai_client: openai.OpenAI, model: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": schema}}
    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    with openai_client.chat.completions.stream(model=model, messages=asked, tools=[tool], **COLD) as stream:
        message = stream.get_final_completion().choices[0]
    assert message.finish_reason == "tool_calls"
    call = message.message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    told = [*asked, message.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = openai_client.chat.completions.create(model=model, messages=told, tools=[tool], **COLD)
    assert answer.choices[0].message.content == "The result is sunny."


@pytest.mark.parametrize("model", EMBED_WAYS)
def test_m1_m5_openai_embeddings(openai_client: openai.OpenAI, model: str) -> None:
    texts = ["the cat sat on the mat", "the cat lay on the mat", "quarterly revenue"]
    packed = [row.embedding for row in openai_client.embeddings.create(model=model, input=texts).data]
    plain = [
        row.embedding for row in openai_client.embeddings.create(model=model, input=texts, encoding_format="float").data
    ]
    for one, two in zip(packed, plain, strict=True):
        assert one == pytest.approx(two, abs=1e-5)
        assert sum(x * x for x in one) == pytest.approx(1, abs=1e-3)
    cosines = [sum(a * b for a, b in zip(packed[0], other, strict=True)) for other in packed[1:]]
    assert cosines[0] > cosines[1]


def test_m1_openai_models(openai_client: openai.OpenAI) -> None:
    ids = {model.id for model in openai_client.models.list()}
    assert {*THREE_WAYS, *EMBED_WAYS} <= ids
    assert openai_client.models.retrieve("pip").id == "pip"
    assert openai_client.models.retrieve("b_openai/pip").id
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.models.retrieve("no/such model")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m2_m5_ollama_chat(ollama_client: ollama.Client, model: str) -> None:
    answer = ollama_client.chat(model, FRANCE, options=COLD)
    assert answer.message.content == PARIS
    assert (answer.done, answer.done_reason, answer.model) == (True, "stop", model)
    assert answer.total_duration > 0
    assert answer.eval_count > 3
    assert answer.prompt_eval_count > 5


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m2_m5_ollama_stream(ollama_client: ollama.Client, model: str) -> None:
    parts = list(ollama_client.chat(model, FRANCE, options=COLD, stream=True))
    assert "".join(part.message.content for part in parts) == PARIS
    assert len(parts) > 3
    assert parts[-1].done
    assert parts[-1].done_reason == "stop"
    assert not any(part.done for part in parts[:-1])


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m2_m5_ollama_generate(ollama_client: ollama.Client, model: str) -> None:
    assert ollama_client.generate(model, FRANCE[0]["content"], options=COLD).response == PARIS
    parts = ollama_client.generate(model, FRANCE[0]["content"], options=COLD, stream=True)
    assert "".join(part.response for part in parts) == PARIS
    raw = "<|im_start|>user\nWhat is 7 + 8?<|im_end|>\n<|im_start|>assistant\n"
    assert ollama_client.generate(model, raw, raw=True, options=COLD).response == "7 + 8 = 15"


@pytest.mark.parametrize("model", THREE_WAYS)
def test_m2_m5_ollama_tool_call(ollama_client: ollama.Client, model: str) -> None:
    def get_weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: where
        """
        return city

    asked = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = ollama_client.chat(model, asked, tools=[get_weather], options=COLD)
    call = answer.message.tool_calls[0].function
    assert (call.name, dict(call.arguments)) == ("get_weather", {"city": "Paris"})
    assert answer.done_reason == "stop"
    told = [*asked, answer.message, {"role": "tool", "tool_name": "get_weather", "content": "sunny"}]
    assert ollama_client.chat(model, told, tools=[get_weather], options=COLD).message.content == "The result is sunny."


@pytest.mark.parametrize("model", EMBED_WAYS)
def test_m2_m5_ollama_embed(ollama_client: ollama.Client, model: str) -> None:
    answer = ollama_client.embed(model, ["one two", "three"])
    assert len(answer.embeddings) == 2
    assert sum(x * x for x in answer.embeddings[0]) == pytest.approx(1, abs=1e-3)
    old = ollama_client.embeddings(model, "one two")
    assert list(old.embedding) == pytest.approx(list(answer.embeddings[0]), abs=1e-4)


def test_m2_ollama_discovery(ollama_client: ollama.Client) -> None:
    listed = {model.model: model for model in ollama_client.list().models}
    assert {f"{name}:latest" for name in (*THREE_WAYS, *EMBED_WAYS)} <= set(listed)
    assert all(len(model.digest) == 64 for model in listed.values())
    shown = ollama_client.show("pip")
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 4096
    assert {"completion", "tools", "vision", "thinking"} <= set(shown.capabilities)
    assert "embedding" in ollama_client.show("embed").capabilities
    ollama_client.chat("pip:latest", FRANCE)
    running = {model.model: model for model in ollama_client.ps().models}
    assert running["pip:latest"].size > 1_000_000
    with pytest.raises(ollama.ResponseError, match="model 'none:latest' not found") as caught:
        ollama_client.show("none")
    assert caught.value.status_code == 404


def test_m2_ollama_loads_and_unloads(ollama_client: ollama.Client) -> None:
    assert ollama_client.generate("embed", "").done_reason == "load"
    assert "embed:latest" in {model.model for model in ollama_client.ps().models}
    assert ollama_client.generate("embed", "", keep_alive=0).done_reason == "unload"
    assert "embed:latest" not in {model.model for model in ollama_client.ps().models}


def test_m5_a_link_of_sixteen_streams_none_crosses(gateway: Served) -> None:
    """16 clients at once, each with a question of its own, over every way: all finish with their own answer."""
    sums = [(a, b) for a in range(4) for b in range(4)]

    def ask(pair: tuple[int, int]) -> str:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0)
        question = [{"role": "user", "content": f"What is {pair[0]} + {pair[1]}?"}]
        model = THREE_WAYS[(pair[0] + pair[1]) % 3]
        chunks = client.chat.completions.create(model=model, messages=question, stream=True, **COLD)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(ask, sums))
    assert answers == [f"{a} + {b} = {a + b}" for a, b in sums]


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")
def test_m1_m2_m5_the_javascript_clients(gateway: Served) -> None:
    script = ROOT / "tests" / "js" / "clients.mjs"
    run = subprocess.run(
        ["node", script, gateway.url, *THREE_WAYS], capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    for model in THREE_WAYS:
        assert told[model] == dict.fromkeys(("chat", "stream", "ollamaChat", "ollamaStream", "ollamaGenerate"), PARIS)
    for model in EMBED_WAYS:
        assert told[model]["openai"] == told[model]["ollama"] == told["embed"]["openai"]
        assert told[model]["openai"] > 1
    assert told["listed"]
    assert told["notFound"] == [404, 404]
