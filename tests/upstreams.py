"""All kinds of backend behind HTTP, before a fake of what they call: one vocabulary for tests of any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from backends.anthropic import AnthropicBackend
from backends.base import Generates
from backends.ollama import OllamaBackend
from backends.openai import OpenAIBackend
from canonical.errors import GatewayError
from canonical.events import Check, Event, TextDelta
from canonical.messages import Message, Text
from canonical.requests import Generate
from tests.faulty import Script, chunk, chunked_head, faulty

KEY = "sk-very-secret"


class Dialect(NamedTuple):
    """How one kind of backend words what a test needs."""

    backend: type[OpenAIBackend | OllamaBackend | AnthropicBackend]
    head: bytes
    pieces: tuple[bytes, ...]
    """Two words, then the end with a finish reason."""
    whole: bytes
    kind: str
    record: tuple[bytes, bytes]
    """What stands before and after the JSON of a streamed record."""

    def error(self, message: str, code: str | None = None) -> bytes:
        error: Any = message
        if self.backend is OpenAIBackend:
            error = {"message": message, "code": code}
        elif self.backend is AnthropicBackend:
            error = {"type": "api_error", "message": message}
        return json.dumps({"error": error}).encode()

    def framed(self, body: bytes) -> bytes:
        return self.record[0] + body + self.record[1]


def sse(*records: bytes) -> tuple[bytes, ...]:
    return tuple(b"data: " + record + b"\n\n" for record in records)


OPENAI = Dialect(
    OpenAIBackend,
    chunked_head("text/event-stream"),
    sse(
        b'{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]}',
        b'{"model":"m","choices":[{"index":0,"delta":{"content":"lo"}}]}',
        b'{"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b'{"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
        b"[DONE]",
    ),
    b'{"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}',
    "text/event-stream",
    (b"data: ", b"\n\n"),
)
OLLAMA = Dialect(
    OllamaBackend,
    chunked_head("application/x-ndjson"),
    (
        b'{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}\n',
        b'{"model":"m","message":{"role":"assistant","content":"lo"},"done":false}\n',
        b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"prompt_eval_count":3,"eval_count":2}\n',
    ),
    b'{"model":"m","message":{"role":"assistant","content":"Hello"},"done":true,"done_reason":"stop",'
    b'"prompt_eval_count":3,"eval_count":2}',
    "application/x-ndjson",
    (b"", b"\n"),
)
ANTHROPIC = Dialect(
    AnthropicBackend,
    chunked_head("text/event-stream"),
    (
        *(
            b"".join(pieces)
            for pieces in (
                sse(
                    b'{"type":"message_start","message":{"model":"m","usage":{"input_tokens":3,"output_tokens":1}}}',
                    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
                    b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}',
                ),
                sse(b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}'),
                sse(
                    b'{"type":"content_block_stop","index":0}',
                    b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}',
                ),
            )
        ),
        *sse(b'{"type":"message_stop"}'),
    ),
    b'{"type":"message","model":"m","content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn",'
    b'"usage":{"input_tokens":3,"output_tokens":2}}',
    "text/event-stream",
    (b"data: ", b"\n\n"),
)
both = pytest.mark.parametrize("dialect", [OPENAI, OLLAMA], ids=["openai", "ollama"])
"""Those that embed, too."""
every = pytest.mark.parametrize("dialect", [OPENAI, OLLAMA, ANTHROPIC], ids=["openai", "ollama", "anthropic"])

ASK = Generate(model="m", messages=(Message("user", (Text("hi"),)),))
WHOLE = msgspec.structs.replace(ASK, stream=False)


def backend(dialect: Dialect, port: int, **settings: Any) -> OpenAIBackend | OllamaBackend | AnthropicBackend:
    values = {"url": f"http://127.0.0.1:{port}", "api_key": KEY, **settings}
    return dialect.backend("up", msgspec.convert(values, dialect.backend.Settings))  # type: ignore[arg-type]  # its own


async def answer(
    source: OpenAIBackend | OllamaBackend | AnthropicBackend, request: Generate = ASK, told: list[Event] | None = None
) -> list[Event]:
    """The checked events of one answer; ``told`` keeps those before a failure."""
    model = await source.open("m")
    assert isinstance(model, Generates)
    events: list[Event] = [] if told is None else told
    check = Check()
    async for batch in model.generate(request):
        assert batch
        for event in batch:
            check.feed(event)
        events.extend(batch)
    check.finish()
    await model.close()
    return events


def stream(dialect: Dialect, *extra: bytes, pieces: Sequence[bytes] | None = None) -> bytes:
    chosen = dialect.pieces if pieces is None else pieces
    return dialect.head + b"".join(map(chunk, [*chosen, *extra])) + chunk(b"")


def words(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def failing(
    dialect: Dialect, script: Script, *, request: Generate = ASK, leaves: bool = False, **settings: Any
) -> tuple[GatewayError, list[Event]]:
    """The error of one request and what was told before it; with ``leaves`` the backend sees us hang up."""

    async def scenario() -> tuple[GatewayError, list[Event]]:
        told: list[Event] = []
        async with faulty(script) as fake:
            source = backend(dialect, fake.port, **settings)
            with pytest.raises(GatewayError) as caught:
                await answer(source, request, told)
            if leaves:
                await fake.left.wait()
            await source.close()
        assert len(fake.requests) == 1  # nothing is ever tried again
        assert KEY not in f"{caught.value.message} {caught.value.code} {caught.value.param} {caught.value}"
        return caught.value, told

    return asyncio.run(scenario())
