"""The hybrid API of a running gateway: its documentation's examples, real models inside, and LM Studio behind an env file."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lmstudio.server import Running, running
from tests.lmstudio.studio import Row
from tests.powershell import Sent, requests
from tests.serving import Served, serving
from tests.test_fetch import RED, png
from tests.ways import INSIDE as WAYS_INSIDE

EXAMPLES = Path(__file__).parent / "hybrid_examples"
REGULAR, VISION, CUSTOM = "qwen/qwen3-4b-2507", "qwen3-vl-4b-instruct", "my-custom-model"
PRINTED = "http://127.0.0.1:8000"
PLACEHOLDER = "<BASE64_ENCODED_IMAGE>"
PICTURE = base64.b64encode(RED).decode()
BLUE = base64.b64encode(png(color=(0, 0, 255))).decode()
FRANCE = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "config": {"temperature": 0}}
PARIS = "The capital of France is Paris."
INSIDE = f"""
listeners: [{{port: 0, dialects: [hybrid]}}, {{port: 0, dialects: [openai, hybrid, ollama]}}]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
models:
  - {{id: "{REGULAR}", backend: local, file: pip.gguf, thinking: off}}
  - {{id: "{VISION}", backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, thinking: off}}
  - {{id: {CUSTOM}, backend: local, file: pip.gguf, thinking: off}}
defaults: {{chat: "{REGULAR}", vision: {VISION}}}
"""
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(INSIDE, listeners=2) as served:
        yield served


@pytest.fixture(scope="module")
def client(gateway: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client:
        yield client


def bash(gateway: Served, name: str, **words: str) -> str:
    """What an example prints, run as it is printed; ``words`` replace some of its own."""
    command = (EXAMPLES / f"{name}.sh").read_text().replace("curl ", "curl -sf ", 1)
    for old, new in {PRINTED: gateway.url, **words}.items():
        assert old in command
        command = command.replace(old, new)
    environ = {**os.environ, "NO_PROXY": "*"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environ, timeout=60, check=True)
    return done.stdout


def powershell(gateway: Served, name: str, **words: str) -> list[Any]:
    """What the requests of an example are answered, sent as Windows PowerShell does: it asks whether to go on."""
    script = (EXAMPLES / f"{name}.ps1").read_text()
    for old, new in words.items():
        assert old in script
        script = script.replace(old, new)

    def ask(sent: Sent) -> Any:
        url = sent.url.replace(PRINTED, gateway.url)
        command = ["curl", "-s", "-X", sent.method, url]
        if sent.body:
            command += ["-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "-d", sent.body]
        environ = {**os.environ, "NO_PROXY": "*"}
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=True)
        return json.loads(done.stdout)

    found = requests(script, {"$base64": PICTURE})
    assert len(found) == script.count("Invoke-RestMethod")
    return list(map(ask, found))


def is_answer(reply: Any, model: str) -> None:
    assert list(reply) == ["model", "content", "stop_reason", "predicted_tokens"]
    assert (reply["model"], reply["stop_reason"] in {"stop", "length"}) == (model, True)
    assert reply["predicted_tokens"] > 0
    assert reply["content"]


def is_stream(text: str, model: str) -> str:
    *fragments, last = [json.loads(line) for line in text.splitlines()]
    assert fragments
    assert all(line.keys() == {"type", "content"} and line["type"] == "fragment" for line in fragments)
    assert list(last) == ["type", "model", "predicted_tokens", "stop_reason"]
    assert (last["type"], last["model"]) == ("done", model)
    assert last["predicted_tokens"] >= len(fragments) > 0
    return "".join(line["content"] for line in fragments)


# The documented examples


@needs_curl
def test_h3_documented_chats_are_answered(gateway: Served) -> None:
    is_answer(json.loads(bash(gateway, "chat_regular")), REGULAR)
    is_answer(json.loads(bash(gateway, "chat")), CUSTOM)
    is_answer(json.loads(bash(gateway, "chat_vision", **{PLACEHOLDER: PICTURE})), VISION)
    (reply,) = powershell(gateway, "chat_regular")
    is_answer(reply, REGULAR)
    (reply,) = powershell(gateway, "chat_vision")
    is_answer(reply, VISION)


@needs_curl
def test_h4_documented_streams_are_lines(gateway: Served) -> None:
    is_stream(bash(gateway, "chat_regular_stream"), REGULAR)
    is_stream(bash(gateway, "chat_vision_stream", **{PLACEHOLDER: PICTURE}), VISION)


@needs_curl
def test_h5_a_red_square_is_called_red(gateway: Served) -> None:
    colour = {
        PLACEHOLDER: PICTURE,
        "What is in this image?": "What color is the image?",
        '"temperature": 0.6': '"temperature": 0',
    }
    reply = json.loads(bash(gateway, "chat_vision", **colour))  # which it still calls a JPEG
    assert (reply["content"], reply["stop_reason"]) == ("The image is red.", "stop")
    colour = {PLACEHOLDER: f"data:image/png;base64,{BLUE}", "Describe this image in detail": "What color is the image?"}
    assert is_stream(bash(gateway, "chat_vision_stream", **colour), VISION).startswith("The image is")
    (reply,) = powershell(gateway, "chat_vision", **{"Describe this image": "What color is the image?", "=0.7": "=0"})
    assert reply["content"] == "The image is red."


@needs_curl
def test_h2_the_documented_life_of_a_model(gateway: Served) -> None:
    (reply,) = powershell(gateway, "load")
    assert (reply["loaded"], reply["model"]["key"]) == (True, REGULAR)
    (rows,) = powershell(gateway, "models")
    assert [(row["key"], row["type"], row["context_length"]) for row in rows] == [(REGULAR, "llm", 4096)]
    first, second = powershell(gateway, "unload")
    assert (first, second) == ({"success": True, "unloaded_keys": [REGULAR]}, {"success": True, "unloaded_keys": []})
    (rows,) = powershell(gateway, "models")
    assert rows == []


# What the examples do not show


def test_h1_health_and_help(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "backends": {"local": "ok"}}
    told = client.get("/help").json()
    table = re.findall(r"\| (GET|POST) \| `([^`]+)`", TABLE)
    assert {(route["method"], route["path"]) for route in told["routes"]} == set(table)
    assert client.get(told["schema"]).status_code == 200
    assert "/chat/vision/stream" in client.get(told["openapi"]).json()["paths"]


TABLE = """
| GET | `/health` | Health check |
| GET | `/help` | API documentation |
| GET | `/models` | List loaded models |
| POST | `/models/load` | Load a model |
| POST | `/models/unload` | Unload model(s) |
| POST | `/chat` | Generic chat (custom model) |
| POST | `/chat/stream` | Generic streaming chat |
| POST | `/chat/regular` | Text-only chat (default model) |
| POST | `/chat/regular/stream` | Text-only streaming |
| POST | `/chat/vision` | Vision chat (default VLM) |
| POST | `/chat/vision/stream` | Vision streaming |
"""


@pytest.mark.parametrize("path", ["/chat/regular", "/chat/regular/stream"])
def test_h3_h4_windows_powershell_keeps_its_accents(client: httpx.Client, path: str) -> None:
    """It writes and reads Latin-1 unless it is told what else."""
    said = json.dumps({**FRANCE, "messages": [{"role": "user", "content": "Repeat: garçon été"}]}, ensure_ascii=False)
    agent = "Mozilla/5.0 (Windows NT; Windows NT 10.0; fr-FR) WindowsPowerShell/5.1.26100.1591"
    asked = {"content-type": "application/json", "user-agent": agent}
    answer = client.post(path, content=said.encode("latin-1"), headers=asked)
    text = answer.content.decode(answer.charset_encoding or "latin-1")
    assert "".join(json.loads(line).get("content", "") for line in text.splitlines()) == "garçon été"


def test_h3_an_answer_is_right_and_counted(client: httpx.Client) -> None:
    whole = client.post("/chat", json=FRANCE).json()
    assert (whole["model"], whole["content"], whole["stop_reason"]) == (REGULAR, PARIS, "stop")
    short = client.post("/chat", json={**FRANCE, "config": {"temperature": 0, "maxTokens": 3}}).json()
    assert (short["stop_reason"], short["predicted_tokens"]) == ("length", 3)
    assert PARIS.startswith(short["content"])
    streamed = client.post("/chat/stream", json=FRANCE)
    assert streamed.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert is_stream(streamed.text, REGULAR) == PARIS
    assert json.loads(streamed.text.splitlines()[-1])["predicted_tokens"] == whole["predicted_tokens"]


def test_h2_one_model_at_a_time(client: httpx.Client) -> None:
    for key in (REGULAR, VISION, CUSTOM, VISION):
        reply = client.post("/models/load", json={"model_key": key, "exclusive": True}).json()
        assert (reply["loaded"], reply["model"]["type"]) == (True, "vlm" if key == VISION else "llm")
        assert [row["key"] for row in client.get("/models").json()] == [key]
    client.post("/models/load", json={"model_key": CUSTOM})
    assert {row["key"] for row in client.get("/models").json()} == {VISION, CUSTOM}
    gone = client.post("/models/unload", json={"unload_all": True}).json()
    assert (gone["success"], set(gone["unloaded_keys"])) == (True, {VISION, CUSTOM})


def test_h2_the_list_is_shared_with_openais_clients(gateway: Served, client: httpx.Client) -> None:
    client.post("/models/load", json={"model_key": CUSTOM, "exclusive": True})
    told = httpx.get(f"{gateway.urls[1]}/models", trust_env=False).json()
    assert {row["id"] for row in told["data"]} >= {REGULAR, VISION, CUSTOM}
    assert [(row["id"], row["name"], row["loaded"]) for row in told["models"]] == [(CUSTOM, CUSTOM, True)]


def test_h2_an_ollama_server_behind_is_told_what_to_load_and_what_goes() -> None:
    front = """
listeners: [{{port: 0, dialects: [hybrid]}}]
backends:
  local: {{type: llama_cpp, models_dir: ./models, threads: 1}}
  theirs: {{type: ollama, url: "{url}"}}
models:
  - {{id: mine, backend: local, file: pip.gguf, thinking: off}}
  - {{id: far, backend: theirs, name: pip}}
"""

    def there(url: str) -> list[str]:
        return [row["name"] for row in httpx.get(f"{url}/api/ps", trust_env=False).json()["models"]]

    with (
        serving(WAYS_INSIDE) as behind,
        serving(front.format(url=behind.url)) as served,
        httpx.Client(base_url=served.url, timeout=30, trust_env=False) as client,
    ):

        def loaded() -> set[str]:
            return {row["key"] for row in client.get("/models").json()}

        assert client.post("/models/load", json={"model_key": "far"}).json()["model"]["key"] == "far"
        assert (there(behind.url), loaded()) == (["pip:latest"], {"far"})
        httpx.post(f"{behind.url}/api/embed", json={"model": "embed", "input": "x"}, trust_env=False)  # somebody else's
        assert len(loaded()) == 2
        assert client.post("/models/load", json={"model_key": "mine", "exclusive": True}).json()["loaded"]
        assert (there(behind.url), loaded()) == ([], {"mine"})
        assert client.post("/chat", json={**FRANCE, "model_key": "far"}).json()["content"] == PARIS
        assert client.post("/models/unload", json={"model_key": "far"}).json()["unloaded_keys"] == ["far"]
        assert (there(behind.url), loaded()) == ([], {"mine"})
        client.post("/models/load", json={"model_key": "far", "exclusive": True})
        assert (there(behind.url), loaded()) == (["pip:latest"], {"far"})
        assert client.post("/models/unload", json={"unload_all": True}).json()["unloaded_keys"] == ["far"]
        assert (there(behind.url), loaded()) == ([], set())


def test_h7_the_documented_errors(client: httpx.Client) -> None:
    reply = client.post("/models/load", json={"model_key": "nobody"})
    assert (reply.status_code, reply.json()) == (
        200,
        {"loaded": False, "error": "Failed to load model: Model not found"},
    )
    with serving(
        "listeners: [{port: 0, dialects: [hybrid]}]\nbackends: {local: {type: llama_cpp, models_dir: ./models}}"
    ) as bare:
        reply = httpx.post(f"{bare.url}/chat", json=FRANCE, trust_env=False)
    assert (reply.status_code, reply.json()) == (503, {"detail": "Chat service unavailable: No model loaded"})


# LM Studio behind, by the documented env file


@pytest.fixture(scope="module")
def studio() -> Iterator[Running]:
    with running(Row(key=REGULAR), Row(key=VISION, vision=True), Row(key="acme/other")) as (_, server):
        yield server


@pytest.fixture(scope="module")
def by_env(studio: Running) -> Iterator[httpx.Client]:
    printed = (EXAMPLES / "env.example").read_text()
    text = printed.replace("http://localhost:1234", studio.studio.url).replace("PORT=8000", "PORT=0")
    assert text.count("\n") == printed.count("\n")
    with (
        serving(text, env_file=True) as served,
        httpx.Client(base_url=served.url, timeout=30, trust_env=False) as client,
    ):
        yield client


def test_h6_models_are_controlled_by_the_sdk_and_chats_go_by_openais_route(
    studio: Running, by_env: httpx.Client
) -> None:
    shown = {"role": "user", "content": "What is it?", "images": [{"data_base64": PICTURE, "mime_type": "image/jpeg"}]}
    desk = studio.studio
    desk.keep(desk.rows["acme/other"])  # its user's
    assert [row["key"] for row in by_env.get("/models").json()] == ["acme/other"]
    assert by_env.post("/models/load", json={"model_key": REGULAR, "exclusive": True}).json()["loaded"]
    assert list(desk.instances) == [REGULAR]
    assert desk.asked("loadModel")
    assert desk.asked("unloadModel")
    is_answer(by_env.post("/chat/regular", json=FRANCE).json(), REGULAR)
    is_stream(by_env.post("/chat/vision/stream", json={"messages": [shown]}).text, VISION)
    told = desk.asked("POST /v1/chat/completions")[-1]
    assert told["model"] == VISION
    assert told["messages"][0]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PICTURE}"
    assert {row["key"] for row in by_env.get("/models").json()} == {REGULAR, VISION}

    desk.instances.clear()  # its user threw them out
    assert by_env.get("/models").json() == []
    is_answer(by_env.post("/chat/regular", json=FRANCE).json(), REGULAR)
    desk.keep(desk.rows["acme/other"])
    assert set(by_env.post("/models/unload", json={"unload_all": True}).json()["unloaded_keys"]) == {
        REGULAR,
        VISION,
        "acme/other",
    }
    assert desk.instances == {}
    reply = by_env.post("/models/load", json={"model_key": "acme/none"}).json()
    assert reply == {"loaded": False, "error": "Failed to load model: Model not found"}


def test_h6_every_page_may_call_without_credentials(by_env: httpx.Client) -> None:
    asked = {"Origin": "https://far.example", "Access-Control-Request-Method": "POST"}
    preflight = by_env.options("/chat/regular", headers={**asked, "Access-Control-Request-Headers": "content-type"})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
    reply = by_env.get("/health", headers={"Origin": "https://far.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in {*preflight.headers, *reply.headers}


def test_h7_lm_studio_has_never_run() -> None:
    """So nobody knows which models there are: that it is not there is all that can be said."""
    words = "Could not connect to LM Studio: Connection refused"
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        port = nobody.getsockname()[1]
    with (
        serving(f"PORT=0\nOPENAI_BASE_URL=http://127.0.0.1:{port}/v1\n", env_file=True) as gateway,
        httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as client,
    ):
        chat = client.post("/chat", json={**FRANCE, "model_key": "my-custom-model"})
        assert (chat.status_code, chat.json()) == (503, {"detail": words})
        key = {"model_key": "my-custom-model"}
        assert client.post("/models/load", json=key).json()["error"] == f"Failed to load model: {words}"
        assert client.post("/models/unload", json=key).json()["error"] == f"Failed to unload model: {words}"


def test_h7_lm_studio_is_not_running(studio: Running, by_env: httpx.Client) -> None:
    words = "Could not connect to LM Studio: Connection refused"
    studio.stop()
    try:
        for path in ("/chat", "/chat/regular/stream", "/chat/vision"):
            reply = by_env.post(path, json=FRANCE)
            assert (reply.status_code, reply.json()) == (503, {"detail": words})
        reply = by_env.get("/models")
        assert (reply.status_code, reply.json()) == (503, {"detail": words})
        reply = by_env.post("/models/load", json={"model_key": REGULAR})
        assert reply.json() == {"loaded": False, "error": f"Failed to load model: {words}"}
        reply = by_env.post("/models/unload", json={"unload_all": True})
        assert (reply.json()["success"], reply.json()["error"]) == (False, f"Failed to unload model: {words}")
    finally:
        studio.start()
    is_answer(by_env.post("/chat/regular", json=FRANCE).json(), REGULAR)
