"""The conversation service on a live gateway with the demo model: C1 to C6, two gateways on one store, and kill -9."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from adapters.framing import SseReader
from tests.serving import Served, serving

MODELS = """
listeners: [{port: 0, dialects: [conversation]}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
  silent: {type: ollama, url: "http://127.0.0.1:%d", models: [silent]}
models:
  - {id: pip, backend: local, file: pip.gguf, slots: 4, thinking: off, temperature: 0, aliases: [mistral]}
  - {id: small, backend: local, file: pip.gguf, slots: 1, context: 256, thinking: off, temperature: 0}
data_dir: %s
"""
FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """A server that takes what comes, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def config(data: Path, silent: socket.socket) -> str:
    return MODELS % (silent.getsockname()[1], data)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, silent: socket.socket) -> Iterator[Served]:
    with serving(config(tmp_path_factory.mktemp("data"), silent)) as served:
        yield served


@pytest.fixture
def http(gateway: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30) as client:
        yield client


def start(http: httpx.Client, id: str) -> None:
    assert http.post("/api/conversation/start", params={"conv_id": id}).status_code == 200


def say(http: httpx.Client, id: str, prompt: str, **more: Any) -> httpx.Response:
    return http.post(f"/api/conversation/{id}/message", json={"prompt": prompt, **more})


def told(http: httpx.Client, id: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = http.get(f"/api/conversation/{id}").json()["messages"]
    return messages


def test_c1_generate_streams_ollamas_lines_one_by_one(http: httpx.Client) -> None:
    with http.stream("POST", "/generate", json={"prompt": FRANCE}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        pieces = list(answer.iter_raw())
    events = [json.loads(data) for _, data in SseReader().feed(b"".join(pieces))]
    assert "".join(event["response"] for event in events) == PARIS
    assert len(events) > 4
    assert {event["model"] for event in events} == {"mistral"}
    assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1]["eval_count"] > 3
    bare = http.post("/generate", json={"prompt": FRANCE, "model": "pip"}, headers={"accept": "application/x-ndjson"})
    assert "".join(json.loads(line)["response"] for line in bare.text.splitlines()) == PARIS
    refused = http.post("/generate", json={"prompt": FRANCE, "model": "none"})
    assert (refused.status_code, refused.json()) == (404, {"detail": "model 'none' not found"})


class ModelDto(BaseModel):
    """As the document prints it."""

    model: str
    version: str


class Query(BaseModel):
    """Likewise."""

    prompt: str
    model: str = "mistral"


def test_c1_c2_c4_the_documents_own_classes_are_what_is_sent_and_read(http: httpx.Client) -> None:
    start(http, "classes")
    listed = [ModelDto.model_validate(row, strict=True) for row in http.get("/api/models").json()]
    for query in (
        Query(prompt=FRANCE),
        *(Query(prompt=FRANCE, model=row.model) for row in listed if row.model == "pip"),
    ):
        told = http.post("/api/conversation/classes/message", content=query.model_dump_json()).json()
        assert (told["role"], told["content"], told["model"]) == ("assistant", PARIS, query.model)
        stream = http.post("/generate", content=query.model_dump_json())
        records = [json.loads(data) for _, data in SseReader().feed(stream.content)]
        assert "".join(record["response"] for record in records) == PARIS


def test_c2_models_are_listed_by_name_and_version(http: httpx.Client) -> None:
    rows = http.get("/api/models").json()
    assert {"model": "pip", "version": "latest"} in rows
    assert all(row.keys() == {"model", "version"} for row in rows)
    assert "embed" not in {row["model"] for row in rows}, "what cannot chat is no model of this service"


def test_c3_c4_c5_a_conversation(http: httpx.Client) -> None:
    start(http, "c")
    assert http.post("/api/conversation/start?conv_id=c").status_code == 400
    assert say(http, "c", "My name is Ada.").json()["content"] == "Nice to meet you, Ada!"
    answer = say(http, "c", "What is my name?", model="mistral").json()
    assert answer["content"] == answer["generated_text"] == "Your name is Ada."
    messages = told(http, "c")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [message["timestamp"] for message in messages] == sorted(message["timestamp"] for message in messages)
    assert messages[-1]["content"] == "Your name is Ada."


def test_c4_ten_at_once_are_answered_one_after_another(gateway: Served, http: httpx.Client) -> None:
    start(http, "ten")
    prompts = [f"What is {number} + 1?" for number in range(10)]
    answers: dict[str, str] = {}

    def one(prompt: str) -> None:
        with httpx.Client(base_url=gateway.url, timeout=60) as client:
            answers[prompt] = say(client, "ten", prompt).json()["content"]

    threads = [threading.Thread(target=one, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    messages = told(http, "ten")
    assert [message["role"] for message in messages] == ["user", "assistant"] * 10
    contents = [message["content"] for message in messages]
    assert dict(zip(contents[::2], contents[1::2], strict=True)) == answers
    assert answers.keys() == set(prompts)


def test_c4_a_history_longer_than_the_context_goes_on(http: httpx.Client) -> None:
    start(http, "long")
    words = ["alpha", "beta", "gamma", "delta"] * 6
    answers = [say(http, "long", f"Repeat: {word}", model="small").json() for word in words]
    assert all("content" in answer for answer in answers), answers
    left_out = [answer.get("left_out", 0) for answer in answers]
    assert left_out == sorted(left_out)
    assert left_out[0] == 0
    assert left_out[-1] > 0


def test_c6_a_local_page_may_call(gateway: Served, http: httpx.Client) -> None:
    """As the document configures it; in a real browser elsewhere."""
    for origin in ("http://localhost:4200", "http://127.0.0.1:4200"):
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        preflight = http.options("/api/conversation/start", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == origin
        assert "content-type" in preflight.headers["access-control-allow-headers"]
    assert http.get("/api/models", headers={"origin": "http://elsewhere.example"}).status_code == 403


def test_c4_who_leaves_in_the_middle_leaves_the_message_marked(gateway: Served, http: httpx.Client) -> None:
    start(http, "left")
    host, port = gateway.url.removeprefix("http://").split(":")
    body = b'{"prompt": "Hello?", "model": "silent"}'
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /api/conversation/left/message HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        _until(lambda: [message["state"] for message in told(http, "left")] == ["answering"])
    _until(lambda: told(http, "left")[0]["state"] == "failed")
    assert "left" in told(http, "left")[0]["error"]
    assert say(http, "left", FRANCE).json()["content"] == PARIS


def test_c4_what_a_killed_gateway_was_answering_is_marked_and_another_goes_on(
    tmp_path: Path, silent: socket.socket
) -> None:
    """Two gateways on one store; the first dies by SIGKILL in the middle of an answer."""
    text = config(tmp_path, silent)
    with ExitStack() as stack:
        first, second = (stack.enter_context(serving(text)) for _ in range(2))
        one, two = (stack.enter_context(httpx.Client(base_url=at.url, timeout=60)) for at in (first, second))
        start(one, "c")
        assert say(two, "c", FRANCE).json()["content"] == PARIS
        hung = threading.Thread(target=lambda: _ignored(first.url, "c", "Hello?", model="silent"))
        hung.start()
        _until(lambda: told(two, "c")[-1]["state"] == "answering")
        behind: list[dict[str, Any]] = []
        waits = threading.Thread(target=lambda: behind.append(_said(second.url, "c", "What is 7 + 8?")))
        waits.start()
        _until(lambda: told(two, "c")[-1]["state"] == "waiting")
        first.process.send_signal(signal.SIGKILL)
        waits.join(20)
        hung.join(20)
        assert behind[0]["content"] == "7 + 8 = 15"
        assert [(message["content"], message["state"]) for message in told(two, "c")] == [
            (FRANCE, "answered"),
            (PARIS, "complete"),
            ("Hello?", "failed"),
            ("What is 7 + 8?", "answered"),
            ("7 + 8 = 15", "complete"),
        ]
        assert "gateway" in told(two, "c")[2]["error"]


def test_kill_9_loses_no_answer_that_was_told(tmp_path: Path, silent: socket.socket) -> None:
    """Eight conversations talk at once when the gateway dies; the next one has all that anybody was told."""
    words = ["alpha", "beta", "gamma", "delta", "one", "two", "three", "four"]
    heard: dict[str, list[str]] = {word: [] for word in words}
    with serving(config(tmp_path, silent)) as first:

        def talk(word: str) -> None:
            with httpx.Client(base_url=first.url, timeout=60) as client:
                try:
                    start(client, word)
                    for number in range(1000):
                        heard[word].append(say(client, word, f"What is {number % 20} + 1?").json()["content"])
                except httpx.HTTPError:
                    return

        threads = [threading.Thread(target=talk, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        _until(lambda: sum(map(len, heard.values())) >= 24)
        first.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    with serving(config(tmp_path, silent)) as second, httpx.Client(base_url=second.url, timeout=60) as client:
        for word in words:
            if not heard[word]:
                continue
            messages = told(client, word)
            answers = [message["content"] for message in messages if message["role"] == "assistant"]
            prompts = [message["content"] for message in messages if message["role"] == "user"]
            assert answers[: len(heard[word])] == heard[word]
            assert len(answers) - len(heard[word]) in {0, 1}
            assert prompts == [f"What is {number % 20} + 1?" for number in range(len(prompts))]
            assert len(prompts) - len(answers) in {0, 1}
            if len(prompts) > len(answers):
                assert messages[-1]["state"] == "failed"
                assert say(client, word, prompts[-1]).status_code == 200
                assert len(told(client, word)) == 2 * len(prompts)


def _until(condition: Any) -> None:
    """Poll what another process does; one that never comes is a test that times out."""
    while not condition():
        time.sleep(0.005)


def _said(url: str, id: str, prompt: str, **more: Any) -> dict[str, Any]:
    with httpx.Client(base_url=url, timeout=60) as client:
        answer: dict[str, Any] = say(client, id, prompt, **more).json()
        return answer


def _ignored(url: str, id: str, prompt: str, **more: Any) -> None:
    try:
        _said(url, id, prompt, **more)
    except httpx.HTTPError:
        return
