"""Conversations of many turns: who reads one holds up nobody else."""

from __future__ import annotations

import threading

import pytest

from adapters.conversation import serve
from gateway.web import conversation
from tests.asgi import House
from tests.conversing import Parrot, lived, say, shape, start, told
from tests.stored import Place


def test_c5_a_long_conversation_is_told_beside_the_loop(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[threading.Thread] = []
    write = serve.conversation_reply

    def seen(*arguments: object) -> bytes:
        where.append(threading.current_thread())
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(serve, "conversation_reply", seen)

    async def story(house: House) -> None:
        await start(house)
        for prompt in ("one", "two", "three"):
            answer = (await say(house, prompt)).json()
        short = await told(house)
        monkeypatch.setattr(conversation, "LONG", 2)
        assert await told(house) == short
        assert [message for message, _ in shape(short)] == ["one", "one!", "two", "two!", "three", "three!"]
        assert answer == {**short[-1], "generated_text": "three!"}
        assert [thread is threading.main_thread() for thread in where] == [True, False]

    lived(file, Parrot(), story)
