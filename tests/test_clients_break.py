"""What the official SDKs make of an answer that breaks in the middle, in every dialect, behind every kind of backend: M4, M5.

What came is kept, then the SDK raises its own error with the backend's words; no faked end, and nothing is asked again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import ollama
import openai
import pytest

from tests.faulty import Peer, chunk, chunked_head
from tests.serving import ROOT, Served, serving
from tests.telling import stories
from tests.test_clients_fail import Upstream
from tests.test_cuts import Recorded
from tests.upstreams import ANTHROPIC, OLLAMA, OPENAI

CONFIG = """
listeners: [{{port: 0}}]
backends:
  o: {{type: openai, url: "http://127.0.0.1:{port}", models: [breaks, ends]}}
  l: {{type: ollama, url: "http://127.0.0.1:{port}", models: [breaks, ends]}}
  c: {{type: anthropic, url: "http://127.0.0.1:{port}", models: [breaks, ends]}}
"""
(HELLO,) = (story for story in stories() if story.name == "hello")
SAID = "Hel"
FIRE = "the machine is on fire"
ENDS = {"breaks": FIRE, "ends": "before it finished"}
TURN: Any = [{"role": "user", "content": "Hello!"}]


class Breaking(Upstream):
    """Says the story's first word; then an error in its dialect, or nothing more."""

    async def _script(self, peer: Peer) -> None:
        request = await peer.request()
        answer = Recorded(HELLO, request.path)
        dialect = OLLAMA if request.path.startswith("/api/") else OPENAI
        dialect = ANTHROPIC if request.path == "/v1/messages" else dialect
        model = json.loads(request.body)["model"]
        self.asked[model] += 1
        word = next(end for end in sorted(answer.ends) if b'"Hel"' in answer.whole[:end])
        last = [dialect.framed(dialect.error(FIRE))] if model == "breaks" else []
        await peer.send(chunked_head(dialect.kind), *map(chunk, [answer.whole[:word], *last, b""]))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Breaking() as fake:
        yield fake


@pytest.fixture(scope="module")
def gateway(upstream: Upstream) -> Iterator[Served]:
    with serving(CONFIG.format(port=upstream.port)) as served:
        yield served


Say = Callable[[str], None]


def chat(url: str, model: str, say: Say) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for part in client.chat.completions.create(model=model, messages=TURN, stream=True):
            assert part.choices[0].finish_reason is None
            say(part.choices[0].delta.content or "")


def chat_helper(url: str, model: str, say: Say) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
        client.chat.completions.stream(model=model, messages=TURN) as stream,
    ):
        for event in stream:
            say(event.delta if event.type == "content.delta" else "")


def completion(url: str, model: str, say: Say) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        for part in client.completions.create(model=model, prompt="Hello!", stream=True):
            say(part.choices[0].text)


class FailedResponse(Exception):
    """The Python SDK raises nothing here: it hands out an ``error``, then the response that failed, with no more after."""


def responses(url: str, model: str, say: Say) -> None:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        events = list(client.responses.create(model=model, input="Hello!", stream=True))
    for event in events:
        say(event.delta if event.type == "response.output_text.delta" else "")
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    failed = events[-1].response
    assert (failed.status, failed.usage, events[-2].message) == ("failed", None, failed.error.message)
    raise FailedResponse(failed.error.message)


def messages(url: str, model: str, say: Say) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none") as client:
        for event in client.messages.create(model=model, messages=TURN, max_tokens=4000, stream=True):
            assert event.type not in {"message_delta", "message_stop"}
            say(event.delta.text if event.type == "content_block_delta" and event.delta.type == "text_delta" else "")


def messages_helper(url: str, model: str, say: Say) -> None:
    with (
        anthropic.Anthropic(base_url=url, api_key="none") as client,
        client.messages.stream(model=model, messages=TURN, max_tokens=4000) as stream,
    ):
        for text in stream.text_stream:
            say(text)


def native_chat(url: str, model: str, say: Say) -> None:
    for part in ollama.Client(url).chat(model, TURN, stream=True):
        assert not part.done
        say(part.message.content or "")


def native_generate(url: str, model: str, say: Say) -> None:
    for part in ollama.Client(url).generate(model, "Hello!", stream=True):
        assert not part.done
        say(part.response)


class Way(NamedTuple):
    """A method of an SDK, and what it raises."""

    ask: Callable[[str, str, Say], None]
    error: type[Exception]


WAYS = [
    Way(chat, openai.APIError),
    Way(chat_helper, openai.APIError),
    Way(completion, openai.APIError),
    Way(responses, FailedResponse),
    Way(messages, anthropic.APIError),
    Way(messages_helper, anthropic.APIError),
    Way(native_chat, ollama.ResponseError),
    Way(native_generate, ollama.ResponseError),
]


@pytest.mark.parametrize("model", ENDS)
@pytest.mark.parametrize("backend", ["o", "l", "c"])
@pytest.mark.parametrize("way", WAYS, ids=[way.ask.__name__ for way in WAYS])
def test_m5_an_answer_that_breaks(gateway: Served, upstream: Upstream, way: Way, backend: str, model: str) -> None:
    if backend == "c" and way.ask is completion:
        pytest.skip("Anthropic's servers take no prompts")
    text: list[str] = []
    before = upstream.asked[model]
    with pytest.raises(way.error, match=ENDS[model]):
        way.ask(gateway.url, f"{backend}/{model}", text.append)
    assert "".join(text) == SAID
    assert upstream.asked[model] == before + 1


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")
def test_m5_answers_that_break_in_javascript(gateway: Served) -> None:
    script = ROOT / "tests" / "js" / "breaks.mjs"
    run = subprocess.run(["node", script, gateway.url], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert len(told) == 3 * 2 * 6 - 2
    for name, (text, kind, words) in told.items():
        assert text == SAID, name
        assert kind == ("Error" if name.startswith("native") else "APIError"), name
        assert ENDS[name.rpartition("/")[2]] in words, name
