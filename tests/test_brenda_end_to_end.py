"""Brenda's document, against a running gateway with a real model behind its names (promises B2 to B10)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.eventsource import answer, heard
from tests.registry import registry
from tests.serving import ROOT, Served, serving

NAMES = ("Vigogne-2-13B", "CodeLlama-13B", "Llama-2-13B")
"""As the document has them."""
MODEL = NAMES[0]
CONFIG = f"""
listeners: [{{port: 0, dialects: [brenda]}}, {{port: 0, dialects: [openai, brenda]}}]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
  demo: {{type: echo}}
models:
{"".join(f"  - {{id: {name}, backend: local, file: pip.gguf, thinking: off, slots: 8}}" + chr(10) for name in NAMES)}
  - {{id: acme/pip, backend: local, file: pip.gguf, thinking: off}}
defaults: {{chat: {MODEL}}}
sessions: {{system: Answer in one line.}}
"""
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
ENDLESS = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 3000, "ignore_eos": True}
"""What no model finishes before it is stopped; the limit is for a test that fails."""


@pytest.fixture(scope="module")
def both() -> Iterator[Served]:
    with serving(CONFIG, listeners=2) as gateway:
        yield gateway


@pytest.fixture
def brenda(both: Served) -> Iterator[httpx.Client]:
    """A client that does as the document says: it stores the id that comes, and sends it from then on."""
    with httpx.Client(base_url=both.url, timeout=60) as client:

        def store(response: httpx.Response) -> None:
            client.headers["X-Session-ID"] = response.headers["X-Session-ID"]

        client.event_hooks["response"] = [store]
        yield client


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"messages": FRANCE, "temperature": 0, **fields})


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    assert choice["message"]["role"] == "assistant"
    text = choice["message"]["content"]
    assert isinstance(text, str)
    return text


def load(client: httpx.Client, name: str) -> list[Any]:
    response = client.post(f"/v1/models/{name}/load")
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(one.data) for one in heard(response.content)]


def test_b2_the_models_are_names(both: Served, brenda: httpx.Client) -> None:
    told = brenda.get("/v1/models").json()
    assert set(told) == {"models"}
    assert set(NAMES) <= set(told["models"])
    assert not {"embed", "rerank"} & set(told["models"]), "what cannot chat is not offered"
    shared = httpx.get(f"{both.urls[1]}/v1/models")
    assert set(shared.json()["models"]) == set(told["models"])
    assert "embed" in {row["id"] for row in shared.json()["data"]}
    assert shared.headers["X-Session-ID"]


@pytest.mark.parametrize("name", [MODEL, "acme/pip", "acme%2Fpip"])
def test_b3_a_model_on_disk_is_loaded(brenda: httpx.Client, name: str) -> None:
    told = load(brenda, name)
    assert (told[0], told[-1]) == ({"status": "exists"}, {"status": "loaded"})
    assert all(set(one) == {"progress"} for one in told[1:-1])
    assert brenda.get("/v1/session").json()["current_model"] == name.replace("%2F", "/")
    assert content(chat(brenda)) == PARIS


def test_b3_a_model_that_there_is_not_is_an_error_among_the_events(brenda: httpx.Client) -> None:
    (told,) = load(brenda, "GPT-9")
    assert told == {"error": "model 'GPT-9' not found"}


def test_b3_a_missing_model_comes_from_hugging_face_and_answers(tmp_path: Path) -> None:
    """Described in config.yaml, or asked for by its name there; the hub is a stand-in."""
    with registry() as hub:
        weights = (ROOT / "models" / "pip.gguf").read_bytes()
        hub.hub("acme/pip-GGUF", {"pip.Q8_0.gguf": weights})
        hub.hub("acme/other-GGUF", {"other.Q8_0.gguf": weights})
        config = f"""
listeners: [{{port: 0, dialects: [brenda]}}]
backends:
  local:
    type: llama_cpp
    models_dir: {tmp_path}
    store: {tmp_path}/store
    threads: 1
    pull: {{hosts: [{hub.host}, {hub.cdn}, hf.co]}}
models:
  - {{id: {MODEL}, backend: local, name: "hf.co/acme/pip-GGUF:Q8_0", thinking: off}}
"""
        with (
            serving(config, environ={"HF_ENDPOINT": hub.url}) as gateway,
            httpx.Client(base_url=gateway.url, timeout=60, headers={"X-Session-ID": "s"}) as client,
        ):
            told = load(client, MODEL)
            end = told.index({"status": "completed"})
            shares = [one["progress"] for one in told[:end]]
            assert shares == sorted(shares)
            assert shares[-1] == 1
            assert told[-1] == {"status": "loaded"}
            assert content(chat(client)) == PARIS
            told = load(client, "hf.co%2Facme%2Fother-GGUF")
            assert {"status": "completed"} in told
            assert told[-1] == {"status": "loaded"}
            assert client.get("/v1/session").json()["current_model"] == "hf.co/acme/other-GGUF"
            assert content(chat(client)) == PARIS
            assert load(client, MODEL)[0] == {"status": "exists"}
            (told_of,) = load(client, "hf.co/acme/none-GGUF")
            assert set(told_of) == {"error"}


def test_b4_ai_has_said_what_the_assistant_said(brenda: httpx.Client) -> None:
    turns = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "ai", "content": "Nice to meet you, Ada!"},
        {"role": "user", "content": "What is my name?"},
    ]
    assert content(chat(brenda, model=MODEL, messages=turns)) == "Your name is Ada."


def test_b4_the_system_text_is_told_to_the_model_alone(brenda: httpx.Client) -> None:
    """By the count of tokens that it reads."""

    def read(**fields: Any) -> int:
        reply = chat(brenda, model=MODEL, **fields).json()
        return int(reply["usage"]["prompt_tokens"])

    earlier = [{"role": "system", "content": "You are a pirate. " * 9}, *FRANCE]
    short, long = read(system="Be brief."), read(system="Be brief. Be brief. Be brief.")
    assert read(system="") < short < long
    assert read(system="Be brief.", messages=earlier) == short < read(messages=earlier)
    assert read() == read(system="Answer in one line.")


def test_b5_b6_streamed_or_not_the_answer_is_the_same(brenda: httpx.Client) -> None:
    body = {"model": MODEL, "messages": FRANCE, "stream": False, "system": "Tu es un assistant."}
    whole = brenda.post("/v1/chat/completions", json=body)
    assert content(whole) == PARIS
    assert whole.headers["content-type"] == "application/json"
    stream = brenda.post("/v1/chat/completions", json={**body, "stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert answer(stream.content) == PARIS
    assert len(heard(stream.content)) > 3


@pytest.mark.parametrize(
    "text",
    ["a\nb\n\n\nc\n", " a  b ", "[DONE]", "x [DONE] y\n[DONE]\n", "data: x\n\ndata: [DONE]\n\n", "é\u2028\U0001f3f3"],
)
def test_b6_no_text_breaks_the_framing(brenda: httpx.Client, text: str) -> None:
    turn = [{"role": "user", "content": text}]
    whole = content(chat(brenda, model="demo/echo", messages=turn, system=""))
    assert text.strip() in whole
    stream = chat(brenda, model="demo/echo", messages=turn, system="", stream=True)
    assert answer(stream.content) == whole


def test_b7_no_model_is_400_and_an_unknown_one_404(brenda: httpx.Client) -> None:
    for fields, status in (({}, 400), ({"model": "GPT-9"}, 404), ({"model": MODEL, "messages": "x"}, 400)):
        response = chat(brenda, **fields)
        assert (response.status_code, set(response.json())) == (status, {"error"})


def test_b8_b9_a_session_from_its_first_request_on(brenda: httpx.Client) -> None:
    """The document's example of use."""
    first = brenda.get("/v1/session")
    id = first.headers["X-Session-ID"]
    assert first.json() == {"session_id": id, "current_model": None, "has_model_loaded": False}
    assert load(brenda, MODEL)[-1] == {"status": "loaded"}
    assert brenda.get("/v1/session").json() == {"session_id": id, "current_model": MODEL, "has_model_loaded": True}
    assert content(chat(brenda)) == PARIS
    assert content(chat(brenda, model=NAMES[1])) == PARIS
    assert brenda.get("/v1/session").json()["current_model"] == NAMES[1]
    stranger = httpx.get(str(brenda.base_url) + "/v1/session")
    assert stranger.headers["X-Session-ID"] != id
    assert stranger.json()["current_model"] is None


def test_b8_a_session_outlives_a_kill(tmp_path: Path) -> None:
    """What was said to be loaded is known, however the process ends the moment after."""
    config = CONFIG + f"data_dir: {tmp_path}\n"
    for turn, name in enumerate(NAMES[:2]):
        with serving(config, listeners=2) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
            client.headers["X-Session-ID"] = "mine"
            before = client.get("/v1/session").json()["current_model"]
            assert before == (NAMES[turn - 1] if turn else None)
            if not turn:
                with client.stream("POST", f"/v1/models/{name}/load") as stream:
                    for line in stream.iter_lines():
                        if "loaded" in line:
                            gateway.process.kill()
                            break
            else:
                assert content(chat(client)) == PARIS


class Talk:
    """A stream without end, read in a thread."""

    def __init__(self, url: str, id: str) -> None:
        self.told = threading.Event()
        self.stream = b""
        self._thread = threading.Thread(target=self._read, args=(url, id))
        self._thread.start()

    def _read(self, url: str, id: str) -> None:
        body = {**ENDLESS, "model": MODEL, "stream": True}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers={"X-Session-ID": id}, timeout=60
        ) as response:
            for piece in response.iter_raw():
                self.stream += piece
                self.told.set()

    def end(self) -> str:
        self._thread.join(60)
        return answer(self.stream)


def test_b10_a_stop_ends_this_sessions_generation_and_no_other(both: Served) -> None:
    mine, other = Talk(both.url, "mine"), Talk(both.url, "other")
    with (
        ThreadPoolExecutor() as pool,
        httpx.Client(base_url=both.url, timeout=60, headers={"X-Session-ID": "mine"}) as client,
    ):
        assert mine.told.wait(30)
        assert other.told.wait(30)
        whole = pool.submit(chat, client, **ENDLESS, model=MODEL)
        assert client.get("/v1/session").json()["current_model"] == MODEL
        stop = client.post("/v1/stop")
        assert (stop.status_code, stop.json()) == (200, {"status": "stopped"})
        assert mine.end()
        # The session is as good as before, and what is another's goes on.
        turns = [{"role": "user", "content": "My name is Ada."}, {"role": "ai", "content": "Nice to meet you, Ada!"}]
        asked_again = [*turns, {"role": "user", "content": "What is my name?"}]
        assert content(chat(client, messages=asked_again)) == "Your name is Ada."
        other.told.clear()
        assert other.told.wait(30)
        client.post("/v1/stop")  # where the whole answer came behind the first one
        content(whole.result(60))
        assert client.post("/v1/stop", headers={"X-Session-ID": "other"}).json() == {"status": "stopped"}
        assert other.end()


def test_b10_without_a_model_or_a_session_there_is_nothing_to_stop(brenda: httpx.Client) -> None:
    assert brenda.post("/v1/stop").status_code == 400
    assert brenda.post("/v1/stop", headers={"X-Session-ID": "fresh"}).status_code == 400


def test_openais_clients_and_brendas_share_a_port_and_notice_nothing(both: Served) -> None:
    url = both.urls[1]
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def of_openai() -> list[str]:
        whole = sdk.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0)  # type: ignore[call-overload]
        stream = sdk.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0, stream=True)  # type: ignore[call-overload]
        pieces = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return [whole.choices[0].message.content, pieces]

    def of_brenda() -> list[str]:
        with httpx.Client(base_url=url, timeout=60, headers={"X-Session-ID": "shared"}) as client:
            whole = content(chat(client, model=MODEL))
            stream = chat(client, stream=True)
            return [whole, answer(stream.content)]

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(work) for _ in range(2) for work in (of_openai, of_brenda)]
        assert all(one.result(60) == [PARIS, PARIS] for one in asked)
    assert MODEL in [row.id for row in sdk.models.list()]
    assert MODEL in httpx.get(f"{url}/v1/models").json()["models"]
