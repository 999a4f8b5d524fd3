"""The access log: a line for every request, however it ended, and in it no words of anybody."""

from __future__ import annotations

import asyncio
import logging

from canonical.events import Finished, Usage
from gateway.settings import Config
from tests.asgi import House
from tests.houses import HELLO, Home, tells
from tests.virtual_time import run

OLLAMA = "/api/chat"
CHAT = {"model": "a", "stream": False, "messages": [{"role": "user", "content": "the secret prompt"}]}


def test_the_log_has_a_line_for_every_request_and_no_words_of_anybody(caplog):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)), config=Config(keys=("0123456789",)))
        key = [(b"authorization", b"Bearer 0123456789")]
        await house.ask("POST", OLLAMA, CHAT, key)
        await house.ask("POST", OLLAMA, CHAT)
        await house.ask("GET", "/nothing", headers=key)
        await house.ask("POST", OLLAMA, b"{the secret prompt", key)
        await house.ask("GET", "/api/tags", headers=[*key, (b"origin", b"https://evil.example")])
        await house.ask("POST", OLLAMA, {**CHAT, "model": "none"}, key)
        lines = house.access()
        assert [next(word for word in line.split() if word.isdigit()) for line in lines] == [
            "200", "401", "404", "400", "403", "404",
        ]  # fmt: skip
        written = house.written.getvalue()
        for word in ("secret", "Hel", "0123456789"):
            assert word not in written
        await house.close()

    with caplog.at_level(logging.DEBUG):
        run(whole())
    for word in ("secret prompt", "0123456789"):
        assert word not in caplog.text


def test_no_input_forges_a_line():
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        evil = "x\n00:00:00 ollama POST /api/chat forged 200\r\x1b[2J\u2028\u0085\x00y"
        await house.ask("POST", OLLAMA, {**CHAT, "model": evil})
        await house.ask("GET", f"/{evil}")
        await house.ask("GET", f"/v1/models/{evil}")
        await house.ask("GET", "/" + "long" * 1000)
        await house.ask("POST", OLLAMA, {**CHAT, "model": "long" * 1000})
        house.log.flush()
        written = house.written.getvalue()
        assert written.count("\n") == len(written.splitlines()) == 5
        assert written.replace("\n", "").isprintable()
        assert written.isascii()
        assert all(len(line) < 400 for line in written.splitlines())
        await house.close()

    run(whole())


def test_lines_are_written_together_and_without_a_stream_not_at_all():
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        await house.ask("GET", "/api/version")
        await house.ask("GET", "/api/version")
        assert house.written.getvalue() == ""
        await asyncio.sleep(0.2)
        assert house.written.getvalue().count("\n") == 2
        house.log._stream = None
        await house.ask("GET", "/api/version")
        house.log.flush()
        assert house.written.getvalue().count("\n") == 2
        await house.close()

    run(whole())


def test_usage_counts_into_the_log_only_what_the_backend_said():
    async def whole() -> None:
        quiet = [*HELLO[:3], Finished("stop")]
        house = House(a=Home(tells(quiet)), b=Home(tells([*HELLO[:3], Finished("stop", Usage(1, 40))])))
        await house.ask("POST", OLLAMA, {**CHAT, "model": "a"})
        await house.ask("POST", OLLAMA, {**CHAT, "model": "b"})
        assert [line.split()[5] for line in house.access()] == ["0", "40"]
        await house.close()

    run(whole())
