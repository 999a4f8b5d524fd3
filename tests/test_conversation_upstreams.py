"""A conversation over an Ollama server: its lines pass through, and an answer comes in whatever form it comes. C1, C4.

The gateway is a live one; the server is a fake, which answers as the model's name says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from adapters.framing import SseReader
from tests.faulty import Peer, chunk, chunked_head, faulty, reply
from tests.serving import serving

CONFIG = """
listeners: [{{port: 0, dialects: [conversation]}}]
backends:
  up: {{type: ollama, url: "http://127.0.0.1:{port}", models: [{models}]}}
"""
PIECES = ["Bon", "jour", " \u2028\u0085 à toi"]
TEXT = "".join(PIECES)


def record(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **more}


END = {"done": True, "done_reason": "stop", "eval_count": 3, "prompt_eval_count": 5}
LINES = [json.dumps(record(text), ensure_ascii=False).encode() for text in PIECES]
LINES.append(json.dumps(record("", **END)).encode())
WHOLE = record(TEXT, **END)
NDJSON, JSON = "application/x-ndjson", "application/json"


def lines(kind: str, *, ending: bytes = b"\n") -> bytes:
    return chunked_head(kind) + b"".join(chunk(line + ending) for line in LINES) + chunk(b"")


ANSWERS = {
    "lines": lines(NDJSON),
    "lines-called-json": lines(JSON),
    "lines-of-windows": lines(NDJSON, ending=b"\r\n"),
    "lines-in-one-piece": reply(200, b"\n".join(LINES), kind=NDJSON),
    "one-json": reply(200, json.dumps(WHOLE).encode(), kind=JSON),
    "one-json-called-lines": reply(200, json.dumps(WHOLE).encode() + b"\n", kind=NDJSON),
    "one-json-over-many-lines": reply(200, json.dumps(WHOLE, indent=2).encode() + b"\n", kind=JSON),
    "one-json-with-a-charset": reply(200, json.dumps(WHOLE).encode(), kind="application/json; charset=utf-8"),
    "one-json-without-a-type": reply(200, json.dumps(WHOLE).encode(), kind=""),
}
FAILURES = {
    "half-a-json": (reply(200, json.dumps(WHOLE).encode()[:-20], kind=JSON), "before it finished"),
    "half-of-many-lines": (reply(200, json.dumps(WHOLE, indent=2).encode()[:-20], kind=JSON), "before it finished"),
    "no-end": (chunked_head(NDJSON) + chunk(LINES[0] + b"\n") + chunk(b""), "before it finished"),
    "an-error": (reply(200, b'{"error":"it broke"}', kind=JSON), "it broke"),
    "an-error-status": (reply(500, b'{"error":"it broke"}', kind=JSON), "it broke"),
    "a-page": (reply(200, b"<html>proxy</html>", kind="text/html"), "text/html"),
}


@asynccontextmanager
async def service() -> AsyncIterator[httpx.AsyncClient]:
    async def script(peer: Peer) -> None:
        while True:
            received = await peer.request()
            asked = json.loads(received.body)
            assert (received.path, asked["stream"]) == ("/api/chat", True)
            name = asked["model"]
            await peer.send(ANSWERS[name] if name in ANSWERS else FAILURES[name][0])

    names = ", ".join([*ANSWERS, *FAILURES])
    async with faulty(script) as fake:
        with serving(CONFIG.format(port=fake.port, models=names)) as gateway:
            async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
                yield client


def live(story: Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]) -> None:
    async def life() -> None:
        async with service() as client:
            await story(client)

    asyncio.run(life())


def test_c4_an_upstream_may_answer_one_json_or_json_lines() -> None:
    async def story(client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/conversation/start?conv_id=c")).status_code == 200
        for name in ANSWERS:
            answer = await client.post("/api/conversation/c/message", json={"prompt": "Salut", "model": name})
            assert answer.status_code == 200, (name, answer.text)
            assert (answer.json()["content"], answer.json()["state"]) == (TEXT, "complete")
        told = (await client.get("/api/conversation/c")).json()["messages"]
        assert [message["role"] for message in told] == ["user", "assistant"] * len(ANSWERS)

        assert (await client.post("/api/conversation/start?conv_id=d")).status_code == 200
        for name, (_, words) in FAILURES.items():
            answer = await client.post("/api/conversation/d/message", json={"prompt": name, "model": name})
            assert answer.status_code in {500, 502}, name
            assert words in answer.json()["detail"]
        told = (await client.get("/api/conversation/d")).json()["messages"]
        assert [(message["content"], message["state"]) for message in told] == [(name, "failed") for name in FAILURES]
        assert all(words in message["error"] for message, (_, words) in zip(told, FAILURES.values(), strict=True))

        # The same upstreams behind /generate: each line an event, whatever it was.
        for name in ANSWERS:
            stream = await client.post("/generate", json={"prompt": "Salut", "model": name})
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = [json.loads(data) for _, data in SseReader().feed(stream.content)]
            assert "".join(event["response"] for event in events) == TEXT
            assert [event["done"] for event in events] == [False] * (len(events) - 1) + [True]
            assert (events[-1]["eval_count"], events[-1]["model"]) == (3, name)
        broken = await client.post("/generate", json={"prompt": "Salut", "model": "no-end"})
        events = [json.loads(data) for _, data in SseReader().feed(broken.content)]
        assert broken.status_code == 200
        assert [event.get("response") for event in events] == ["Bon", None]
        assert "before it finished" in events[-1]["error"]
        refused = await client.post("/generate", json={"prompt": "Salut", "model": "an-error-status"})
        assert (refused.status_code, refused.json()) == (500, {"detail": "it broke"})

    live(story)


@pytest.mark.parametrize("name", ["lines", "one-json-over-many-lines", "one-json"])
def test_an_ollama_server_may_answer_lines_where_one_json_was_asked_for(name: str) -> None:
    """For the other dialects, which ask for an answer whole."""
    from tests.upstreams import OLLAMA, WHOLE, answer, backend, words

    async def life() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(ANSWERS[name])

        async with faulty(script) as fake:
            source = backend(OLLAMA, fake.port)
            assert words(await answer(source, WHOLE)) == TEXT
            await source.close()

    asyncio.run(life())
