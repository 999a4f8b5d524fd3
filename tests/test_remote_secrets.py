"""A backend that tells our own key back: nobody behind the gateway gets to read it. (Reliability 8)"""

from __future__ import annotations

import asyncio

import pytest

from canonical.events import fold
from canonical.requests import Generate
from tests.faulty import chunk, chunked_head, faulty, once, reply
from tests.upstreams import ASK, KEY, WHOLE, Dialect, answer, backend, every


@every
@pytest.mark.parametrize("request_", [ASK, WHOLE], ids=["stream", "whole"])
def test_our_key_in_an_answer_is_redacted(dialect: Dialect, request_: Generate) -> None:
    async def scenario() -> None:
        streamed = request_ is ASK
        told = [piece.replace(b"Hel", b"Hel" + KEY.encode()) for piece in dialect.pieces]
        body = chunked_head(dialect.kind) + b"".join(map(chunk, told)) + chunk(b"")
        whole = reply(200, dialect.whole.replace(b"Hel", b"Hel" + KEY.encode()))
        async with faulty(once(body if streamed else whole)) as fake:
            source = backend(dialect, fake.port)
            text = fold(await answer(source, request_)).text
            await source.close()
        assert KEY not in text
        assert "[redacted]" in text

    asyncio.run(scenario())


@every
def test_our_key_in_a_list_of_models_is_redacted(dialect: Dialect) -> None:
    async def scenario() -> None:
        name = "models" if dialect.backend.__name__ == "OllamaBackend" else "data"
        row = f'{{"{name}":[{{"id":"{KEY}","name":"{KEY}","model":"{KEY}"}}]}}'
        async with faulty(once(reply(200, row.encode()))) as fake:
            source = backend(dialect, fake.port)
            rows = await source.models()
            await source.close()
        assert [info.id for info in rows] != []
        assert not any(KEY in repr(info) for info in rows)

    asyncio.run(scenario())
