"""What a stop of Brenda's ends, and when it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from canonical.events import Event, Finished, Started, TextDelta
from canonical.requests import Generate
from gateway.sessions import SessionId, Sessions
from tests.asgi import Headers, House
from tests.calling import until
from tests.eventsource import answer
from tests.houses import HELLO, Home, Talks, tells
from tests.in_sessions import (
    ALONE,
    ASK,
    CHAT,
    KEYS,
    MINE,
    YOURS,
    Unkept,
    live,
    state,
)
from tests.responding import ANN, BEN
from tests.virtual_time import run


class Talking(Home):
    """Says one word to each, and then nothing for ever; but to who says ``end`` it answers. To be stopped takes as long as ``held``."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(self._tell, slots=slots)
        self.told = 0
        """To how many the word has been said and taken."""
        self.held = asyncio.Event()
        self.held.set()

    async def _tell(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        if "end" in str(request.messages[-1].parts):
            yield HELLO
            return
        yield [Started("m"), TextDelta("word")]
        self.told += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.held.wait()


async def stopped(a: House, headers: Headers = MINE) -> None:
    call = await a.ask("POST", "/v1/stop", b"", headers)
    assert (call.status, call.json()) == (200, {"status": "stopped"})


def test_b10_a_stop_ends_all_of_its_session_and_nothing_else(tmp_path: Path) -> None:
    home = Talking(4)

    async def story(a: House) -> None:
        streams = [a.call("POST", CHAT, {**ASK, "stream": True}, MINE) for _ in range(2)]
        whole = a.call("POST", CHAT, ASK, MINE)
        other = a.call("POST", CHAT, {**ASK, "stream": True}, YOURS)
        for stream in (*streams, other):
            await stream.until(2)
        await until(lambda: home.told == 4)
        await stopped(a)
        assert a.running() == 1
        for stream in streams:
            assert answer((await stream.end()).body) == "word"
        reply = (await whole.end()).json()["choices"][0]
        assert (reply["message"]["content"], reply["finish_reason"]) == ("word", "stop")
        assert not other.complete
        await stopped(a)  # nothing runs, and its model is known
        assert not other.complete
        again = await a.ask("POST", CHAT, {"messages": [{"role": "user", "content": "end"}]}, MINE)
        assert again.json()["choices"][0]["message"]["content"] == "Hello"
        await stopped(a, YOURS)
        assert answer((await other.end()).body) == "word"

    live(tmp_path, story, home)


def test_b10_who_waits_for_a_slot_is_stopped_and_nothing_is_generated_for_it(tmp_path: Path) -> None:
    home = Talking()

    async def story(a: House) -> None:
        first = a.call("POST", CHAT, {**ASK, "stream": True}, YOURS)
        await first.until(2)
        waiting = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        whole = a.call("POST", CHAT, {**ASK, "n": 3}, MINE)
        (resident,) = a.engine._pool.residents()
        await until(lambda: len(list(resident.turns())) == 2)
        await stopped(a)
        assert answer((await waiting.end()).body) == ""
        contents = [one["message"]["content"] for one in (await whole.end()).json()["choices"]]
        assert contents == ["", "", ""]
        assert (await state(a))["current_model"] is None  # nobody has answered
        assert isinstance(home.model, Talks)
        assert len(home.model.requests) == 1
        await stopped(a, YOURS)

    live(tmp_path, story, home)


def test_b10_who_waits_for_a_load_is_stopped(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def story(a: House) -> None:
        waiting = a.call("POST", CHAT, ASK, MINE)
        await until(lambda: a.engine._pool.residents() != [])
        await stopped(a)
        assert (await waiting.end()).status == 200
        go.set()

    live(tmp_path, story, Home(tells(HELLO), on_open=lambda: _wait(go)))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def test_b10_under_another_key_there_is_nothing_to_stop(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, [*ANN, *MINE])
        await stream.until(2)
        assert (await a.ask("POST", "/v1/stop", b"", [*BEN, *MINE])).status == 400
        assert a.running() == 1
        await stopped(a, [*ANN, *MINE])
        await stream.end()

    live(tmp_path, story, Talking(), config=KEYS)


def test_b10_a_stop_is_answered_when_nothing_runs_any_more(tmp_path: Path) -> None:
    home = Talking()

    async def story(a: House) -> None:
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        await stream.until(2)
        home.held.clear()
        stop = a.call("POST", "/v1/stop", b"", MINE)
        session = await state(a)  # whatever is answered meanwhile
        assert session["current_model"] == "a"
        assert (stop.sent, stream.complete, a.running()) == ([], False, 1)
        home.held.set()
        assert (await stop.end()).json() == {"status": "stopped"}
        assert a.running() == 0
        assert answer((await stream.end()).body) == "word"

    live(tmp_path, story, home)


def test_b10_what_does_not_stop_is_said_to() -> None:
    async def story() -> None:
        home = Talking()
        a = House(listener=ALONE, a=home)
        a.gateway.sessions = Sessions(Unkept())  # type: ignore[arg-type]
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        await stream.until(2)
        home.held.clear()
        stop = await a.ask("POST", "/v1/stop", b"", MINE)
        assert (stop.status, set(stop.json())) == (500, {"error"})
        home.held.set()
        await stream.end()
        await a.close()

    run(story())


def test_b10_who_reads_slowly_is_stopped_behind_its_back(tmp_path: Path) -> None:
    said = 0

    async def chatter(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
        nonlocal said
        yield [Started("m")]
        while True:
            said += 1
            yield [TextDelta("x")]

    async def story(a: House) -> None:
        slow = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        slow.reading.clear()
        await until(lambda: said > 1)
        await stopped(a)
        assert (a.running(), said) == (0, 2)  # a batch ahead, and no further
        slow.reading.set()
        assert set(answer((await slow.end()).body)) == {"x"}

    live(tmp_path, story, Home(chatter))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_own_generation(tmp_path: Path, stream: bool) -> None:
    async def story(a: House) -> None:
        leaving, staying = (a.call("POST", CHAT, {**ASK, "stream": stream}, MINE) for _ in range(2))
        await until(lambda: a.running() == 2)
        leaving.leave()
        await leaving.end()
        assert a.running() == 1
        await stopped(a)
        assert (await staying.end()).status == 200
        sessions = a.gateway.sessions
        assert sessions is not None
        assert not sessions._running

    live(tmp_path, story, Talking(2))


def test_b10_a_stop_needs_a_session_with_a_model(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        for headers in ((), MINE):
            call = await a.ask("POST", "/v1/stop", b"", headers)
            assert (call.status, set(call.json())) == (400, {"error"})

    live(tmp_path, story)


def test_a_generation_ends_as_its_grammar_has_it_wherever_it_is_stopped() -> None:
    """Stopped before its first word, between any two, or behind its last: what is read is a whole answer."""

    async def story() -> None:
        for place in range(5):
            sessions = Sessions(Unkept())  # type: ignore[arg-type]
            read: list[Event] = []
            with sessions.generating(SessionId("", "x")) as generation:
                if place == 0:
                    generation.stop()
                async for batch in generation.read(told()):
                    read.extend(batch)
                    if len(read) == place:
                        generation.stop()
            assert isinstance(read[0], Started)
            assert [type(event) for event in read].count(Finished) == 1
            assert isinstance(read[-1], Finished)
            assert generation.ended.is_set()
            assert not await sessions.stop(SessionId("", "x"))

    async def told() -> AsyncGenerator[Sequence[Event], None]:
        for event in HELLO:
            yield [event]
            await asyncio.sleep(0)

    run(story())
