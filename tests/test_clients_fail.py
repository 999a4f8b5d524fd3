"""What the official SDKs make of failures: class, code and words of the exception, and how often they try: M1, M2.

A gateway before a backend that fails as the name of the model says, in either dialect.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import httpx
import ollama
import openai
import pytest

from tests.faulty import Peer, chunk, chunked_head, faulty, reply
from tests.serving import ROOT, Served, serving
from tests.upstreams import OLLAMA, OPENAI

CONFIG = """
listeners: [{{port: 0}}]
backends:
  o: {{type: openai, url: "http://127.0.0.1:{port}", models: [{names}]}}
  l: {{type: ollama, url: "http://127.0.0.1:{port}", models: [{names}]}}
  gone: {{type: openai, url: "http://127.0.0.1:9", models: [gone]}}
"""
STATUSES = {
    400: (openai.BadRequestError, 400, 1),
    401: (openai.InternalServerError, 502, 1),
    404: (openai.NotFoundError, 404, 1),
    413: (openai.APIStatusError, 413, 1),
    422: (openai.UnprocessableEntityError, 422, 1),
    429: (openai.RateLimitError, 429, 3),
    500: (openai.InternalServerError, 500, 1),
    503: (openai.InternalServerError, 503, 3),
    504: (openai.InternalServerError, 504, 1),
}
"""The backend's status -> what the SDK raises, with which status, after how many tries."""
NAMES = [*(f"s{status}" for status in STATUSES), "breaks", "ends", "long"]
HELLO: Any = [{"role": "user", "content": "Hello!"}]
LONG = "This model's maximum context length is 8 tokens. However, you requested 9 tokens."


class Upstream:
    """The failing backend, in a thread of its own; ``asked`` counts requests by model."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _run(self) -> None:
        self._end = asyncio.Event()
        async with faulty(self._script) as fake:
            self.port = fake.port
            self._ready.set()
            await self._end.wait()

    async def _script(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.method == "GET":
                await peer.send(reply(404, b"{}"))
                continue
            model = json.loads(request.body)["model"]
            self.asked[model] += 1
            dialect = OPENAI if request.path.startswith("/v1/") else OLLAMA
            if model == "breaks":
                await peer.send(chunked_head(dialect.kind), chunk(dialect.pieces[0]))
                frame = dialect.framed(dialect.error("the machine is on fire", "on_fire"))
                await peer.send(chunk(frame), chunk(b""))
            elif model == "ends":
                await peer.send(chunked_head(dialect.kind), chunk(dialect.pieces[0]), chunk(b""))
            elif model == "long":
                await peer.send(reply(400, dialect.error(LONG, "context_length_exceeded")))
            else:
                await peer.send(reply(int(model[1:]), dialect.error("no model of that kind", None)))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(upstream: Upstream) -> Iterator[Served]:
    with serving(CONFIG.format(port=upstream.port, names=", ".join(NAMES))) as served:
        yield served


@pytest.fixture(scope="module")
def sdk(gateway: Served) -> Iterator[openai.OpenAI]:
    """The SDK with its own number of retries; only its pauses are left out."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none") as client:
        client._calculate_retry_timeout = lambda *_: 0.0  # type: ignore[method-assign]  # or a test would sleep
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("backend", ["o", "l"])
@pytest.mark.parametrize("status", STATUSES)
def test_m1_class_and_tries_of_each_status(
    sdk: openai.OpenAI, upstream: Upstream, backend: str, status: int, stream: bool
) -> None:
    """OpenAI 2: every class; a failure that would come again is told once, so that no generation runs three times."""
    kind, told, tries = STATUSES[status]
    before = upstream.asked[f"s{status}"]
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.chat.completions.create(model=f"{backend}/s{status}", messages=HELLO, stream=stream)
    assert type(caught.value) is kind
    assert caught.value.status_code == told
    assert upstream.asked[f"s{status}"] - before == tries
    assert caught.value.code
    assert caught.value.type
    assert caught.value.request_id
    if status != 401:  # whose words may quote the operator's key
        assert "no model of that kind" in caught.value.message


def test_m1_a_backend_that_is_not_there_is_tried_again(sdk: openai.OpenAI) -> None:
    """OpenAI 2: 502 with a code; the SDK's own retries may find it back."""
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.chat.completions.create(model="gone", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (502, "backend_unavailable")
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "2"


@pytest.mark.parametrize("backend", ["o", "l"])
def test_m1_too_long_a_prompt_keeps_its_code(sdk: openai.OpenAI, backend: str) -> None:
    """OpenAI 2: agents look for ``context_length_exceeded`` and "maximum context length"."""
    with pytest.raises(openai.BadRequestError, match="maximum context length is 8 tokens") as caught:
        sdk.chat.completions.create(model=f"{backend}/long", messages=HELLO)
    assert caught.value.code == "context_length_exceeded"


def test_m1_statuses_of_the_gateways_own(gateway: Served, sdk: openai.OpenAI) -> None:
    """OpenAI 2: the envelope has all four keys, whatever refuses, and nothing of these is tried again."""
    calls: list[tuple[str, str, dict[str, Any], int, str]] = [
        ("GET", "/v1/chat/completions", {}, 405, "method_not_allowed"),
        ("POST", "/v1/nope", {}, 404, "not_found"),
        ("POST", "/v1/chat/completions", {"content": b"{"}, 400, "invalid_value"),
        ("POST", "/v1/chat/completions", {"json": {"model": "s400"}}, 400, "missing_required_parameter"),
        ("POST", "/v1/chat/completions", {"json": {"model": "none", "messages": HELLO}}, 404, "model_not_found"),
        ("DELETE", "/v1/models/s400", {}, 501, "not_implemented"),
        ("POST", "/v1/moderations", {}, 501, "not_implemented"),
    ]
    for method, path, fields, status, code in calls:
        answer = httpx.request(method, gateway.url + path, **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answer.headers["content-type"] == "application/json"
    with pytest.raises(openai.InternalServerError) as caught:
        sdk.models.delete("s400")
    assert caught.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_m1_compressed_bodies_have_a_code(gateway: Served) -> None:
    """Ollama 17.29: 415, which the client can tell from a broken request."""
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=b"x", headers={"content-encoding": "zstd"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("backend", ["o", "l"])
@pytest.mark.parametrize(("model", "words"), [("breaks", "the machine is on fire"), ("ends", "before it finished")])
def test_m1_a_failure_in_mid_stream(sdk: openai.OpenAI, backend: str, model: str, words: str) -> None:
    """OpenAI 5.3, 14.1: what came is kept, then APIError with its code; no faked end."""
    text: list[str] = []

    def read() -> None:
        for part in sdk.chat.completions.create(model=f"{backend}/{model}", messages=HELLO, stream=True):
            text.append(part.choices[0].delta.content or "")
            assert part.choices[0].finish_reason is None

    with pytest.raises(openai.APIError, match=words) as caught:
        read()
    assert "".join(text) == "Hel"
    assert (
        caught.value.code
        == {"ends": "incomplete_stream", "breaks": "on_fire" if backend == "o" else "backend_error"}[model]
    )


@pytest.mark.parametrize("backend", ["o", "l"])
@pytest.mark.parametrize(("model", "words"), [("breaks", "the machine is on fire"), ("ends", "before it finished")])
def test_m2_a_failure_in_mid_stream(gateway: Served, backend: str, model: str, words: str) -> None:
    """Ollama 1.3, 17.9: the last line is an ``error``, which the client raises."""
    text: list[str] = []

    def read() -> None:
        for part in ollama.Client(gateway.url).chat(f"{backend}/{model}", HELLO, stream=True):
            text.append(part.message.content or "")
            assert not part.done

    with pytest.raises(ollama.ResponseError, match=words):
        read()
    assert "".join(text) == "Hel"


@pytest.mark.parametrize("backend", ["o", "l"])
@pytest.mark.parametrize("status", STATUSES)
def test_m2_statuses_and_words(gateway: Served, backend: str, status: int) -> None:
    """Ollama 1.3: the status and ``{"error": text}``."""
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError) as caught:
            list(ollama.Client(gateway.url).chat(f"{backend}/s{status}", HELLO, stream=stream))
        assert caught.value.status_code == STATUSES[status][1]
        assert caught.value.error


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")
def test_m1_m2_failures_in_javascript(gateway: Served, upstream: Upstream) -> None:
    """The same through the JavaScript SDKs: classes, tries, and failures in mid-stream."""
    script = ROOT / "tests" / "js" / "failures.mjs"
    run = subprocess.run(["node", script, gateway.url], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["statuses"] == {
        f"{backend}/s{status}": [
            STATUSES[status][0].__name__.replace("APIStatusError", "APIError"),
            STATUSES[status][1],
        ]
        for backend in ("o", "l")
        for status in STATUSES
    }
    assert told["o/breaks"] == ["Hel", "APIError", "on_fire", "the machine is on fire"]
    assert told["l/breaks"] == ["Hel", "APIError", "backend_error", "the machine is on fire"]
    assert told["o/ends"][:3] == told["l/ends"][:3] == ["Hel", "APIError", "incomplete_stream"]
    assert told["ollama o/breaks"] == told["ollama l/breaks"] == ["Hel", "the machine is on fire"]
    assert told["ollama none"] == [404, "model 'none' not found"]
