"""OpenAI's official clients on ``/v1/responses``, unchanged, against a running gateway on the real demo model: M3, M4, M5.

Gateway A has the model inside, and reaches gateway B three times: in OpenAI's dialect, in Ollama's and in Anthropic's.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.serving import ROOT, Served, serving
from tests.test_clients_trip import ANNA_ASKED, Person
from tests.test_end_to_end import PARIS
from tests.ways import WAYS, four_ways

FRANCE = "What is the capital of France?"
SUM = "What is 7 + 8?"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
ECHO = """
listeners: [{{port: 0}}]
backends: {{demo: {{type: echo}}}}
data_dir: "{data}"
limits: {{grace: 1}}
"""

ways = pytest.mark.parametrize("model", WAYS)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with four_ways() as (a, _):
        yield a


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@ways
def test_m5_create_and_go_on(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input=FRANCE, temperature=0, metadata={"a": "b"})
    assert (first.output_text, first.status, first.metadata) == (PARIS, "completed", {"a": "b"})
    assert first.usage is not None
    assert first.usage.output_tokens > 0
    second = client.responses.create(model=model, input=SUM, temperature=0, previous_response_id=first.id)
    assert "15" in second.output_text
    items = client.responses.input_items.list(second.id, order="asc", limit=1)
    assert [item.type for item in items] == ["message"] * 3
    assert client.responses.retrieve(second.id) == second
    client.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(second.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=model, input=SUM, previous_response_id=second.id)
    assert caught.value.code == "previous_response_not_found"


@ways
def test_m5_stream(client: openai.OpenAI, model: str) -> None:
    seen: list[str] = []
    with client.responses.stream(model=model, input=SUM, temperature=0, reasoning={"effort": "high"}) as stream:
        thoughts = "".join(
            event.delta
            for event in stream
            if seen.append(event.type) is None and event.type == "response.reasoning_text.delta"
        )
        final = stream.get_final_response()
    assert "add" in thoughts
    assert "15" in final.output_text
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")
    again = list(client.responses.retrieve(final.id, stream=True))
    assert "".join(event.delta for event in again if event.type == "response.output_text.delta") == final.output_text


@ways
def test_m5_tools_there_and_back(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "tools": [WEATHER], "temperature": 0}
    with client.responses.stream(**asked, input="What is the weather in Paris?") as stream:
        for event in stream:
            if event.type == "response.function_call_arguments.done":
                assert json.loads(event.arguments) == {"city": "Paris"}
        called = stream.get_final_response()
    (call,) = (item for item in called.output if item.type == "function_call")
    assert call.name == "get_weather"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    kept = client.responses.create(**asked, input=[output], previous_response_id=called.id)
    own: Any = [
        {"role": "user", "content": "What is the weather in Paris?"},
        *(i.to_dict() for i in called.output),
        output,
    ]
    told = client.responses.create(**asked, input=own, store=False)
    assert "sunny" in kept.output_text
    assert told.output_text == kept.output_text


@ways
def test_m5_parse_gives_the_typed_object(client: openai.OpenAI, model: str) -> None:
    parsed = client.responses.parse(model=model, input=ANNA_ASKED, text_format=Person, temperature=0)
    assert parsed.output_parsed == Person(name="Anna", age=30, city="Paris")


@ways
def test_m5_an_answer_cut_off_is_incomplete(client: openai.OpenAI, model: str) -> None:
    cut = client.responses.create(model=model, input=FRANCE, temperature=0, max_output_tokens=2)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_m5_logprobs(client: openai.OpenAI) -> None:
    told = client.responses.create(
        model="pip", input=FRANCE, temperature=0, include=["message.output_text.logprobs"], top_logprobs=2
    )
    (message,) = (item for item in told.output if item.type == "message")
    part = message.content[0]
    assert part.type == "output_text"
    assert part.logprobs
    assert "".join(token.token for token in part.logprobs) == told.output_text
    assert all(len(token.top_logprobs) == 2 for token in part.logprobs)


def test_m5_a_custom_tool(client: openai.OpenAI) -> None:
    """The demo model knows its own tools only: the call is forced, and its text is what it is."""
    tool: Any = {"type": "custom", "name": "apply_patch", "description": "Applies a patch."}
    asked: Any = {"model": "pip", "tools": [tool, {"type": "web_search"}], "temperature": 0, "max_output_tokens": 60}
    told = client.responses.create(**asked, input="Fix it.", tool_choice={"type": "custom", "name": "apply_patch"})
    (call,) = (item for item in told.output if item.type == "custom_tool_call")
    assert call.name == "apply_patch"


def test_m3_the_background(client: openai.OpenAI) -> None:
    told = client.responses.create(model="pip", input=FRANCE, temperature=0, background=True)
    assert told.status == "queued"
    followed = list(client.responses.retrieve(told.id, stream=True))
    assert followed[-1].type == "response.completed"
    assert client.responses.retrieve(told.id).output_text == PARIS
    running = client.responses.create(model="pip", input="Tell me a story.", background=True)
    began = time.monotonic()
    assert client.responses.cancel(running.id).status in {"cancelled", "completed"}
    assert time.monotonic() - began < 5
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        client.responses.cancel(client.responses.create(model="pip", input=FRANCE, temperature=0).id)


def test_m3_tokens_are_counted(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model="pip", input=FRANCE)
    told = client.responses.create(model="pip", input=FRANCE, max_output_tokens=1)
    assert told.usage is not None
    assert counted.input_tokens == told.usage.input_tokens


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript client needs Node")
def test_m5_javascript(gateway: Served) -> None:
    command = ["node", str(ROOT / "tests" / "js" / "responses.mjs"), gateway.url, *WAYS]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    for model in WAYS:
        seen = told[model]
        assert seen["create"] == seen["retrieve"] == seen["replay"] == PARIS
        assert "add" in seen["stream"][0]
        assert "15" in seen["stream"][1]
        assert seen["final"] == ["completed", seen["stream"][1], True]
        assert seen["call"] == ["get_weather", {"city": "Paris"}]
        assert "sunny" in seen["answer"]
        assert seen["items"] == ["message", "function_call", "function_call_output"]
        assert seen["parsed"] == {"name": "Anna", "age": 30, "city": "Paris"}
        assert seen["cancel"][0] == "queued"
        assert seen["cancel"][1] in {"cancelled", "completed"}
        assert seen["deleted"] == 404


# The process and its disk.


def _post(url: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/v1/responses", json={"model": "echo", "input": "hello", **fields}, timeout=30)


def test_m3_a_chain_goes_on_after_a_kill(tmp_path: Path) -> None:
    config = ECHO.format(data=tmp_path)
    with serving(config) as served:
        first = _post(served.url).json()
        lines = []
        with httpx.stream(
            "POST",
            f"{served.url}/v1/responses",
            json={"model": "echo", "input": "and?", "previous_response_id": first["id"], "stream": True},
        ) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    lines.append(json.loads(line[6:]))
                    if lines[-1]["type"] == "response.completed":
                        served.process.kill()
                        break
        served.process.wait()
    second = lines[-1]["response"]
    with serving(config) as served:
        assert httpx.get(f"{served.url}/v1/responses/{second['id']}").json() == second
        third = _post(served.url, input="so?", previous_response_id=second["id"])
        assert third.status_code == 200
        url = f"{served.url}/v1/responses/{third.json()['id']}/input_items?order=asc"
        texts = [item["content"][0]["text"] for item in httpx.get(url).json()["data"]]
        assert texts == ["hello", "hello", "and?", "and?", "so?"]


def test_m3_a_full_disk_is_said_and_chatting_goes_on(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; it is lifted on the running gateway."""
    config = ECHO.format(data=tmp_path).replace("limits:", "access_log: false\nlimits:")
    with serving(config) as served:
        first = _post(served.url).json()
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
        long = "word " * 40_000
        told = _post(served.url, input=long, store=True)
        assert (told.status_code, told.json()["error"]["code"]) == (507, "insufficient_storage")
        told = _post(served.url, input=long)
        assert (told.status_code, told.json()["store"]) == (200, False)
        chat = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        assert httpx.post(f"{served.url}/v1/chat/completions", json=chat).status_code == 200
        assert httpx.get(f"{served.url}/v1/responses/{first['id']}").json() == first
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, unlimited)
        told = _post(served.url, input=long, store=True)
        assert (told.status_code, told.json()["store"]) == (200, True)
        assert httpx.get(f"{served.url}/v1/responses/{told.json()['id']}").status_code == 200


def test_m3_two_gateways_share_what_is_kept(tmp_path: Path) -> None:
    config = ECHO.format(data=tmp_path)
    with serving(config) as one, serving(config) as two:
        told = _post(one.url).json()
        assert httpx.get(f"{two.url}/v1/responses/{told['id']}").json() == told
        assert _post(two.url, previous_response_id=told["id"]).status_code == 200


def test_a_gateway_that_is_asked_for_nothing_makes_no_folder(tmp_path: Path) -> None:
    with serving(ECHO.format(data=tmp_path / "data")) as served:
        assert _post(served.url, store=False).status_code == 200
        assert httpx.get(f"{served.url}/v1/responses/resp_x").status_code == 404
    assert not (tmp_path / "data").exists()
